"""From the bytes of a batch to the numbers that augmentation and the network take."""

import torch.nn.functional as F
from torch import Tensor

from saformer.data.events import normalise
from saformer.data.settings import DatasetConfig


def to_float(x: Tensor, dataset: DatasetConfig) -> Tensor:
    """Convert images to 0..1, or scale event counts and resize them to the model's input size.

    Args:
        x: Images [B, C, H, W], bytes or floats in 0..1; or event counts [B, T, 2, H, W].
        dataset: Settings of the dataset that they come from.
    """
    events, size = dataset.events, dataset.image_size
    if events is None:
        return x if x.is_floating_point() else x.float().div_(255)
    counts = normalise(x.float(), events.norm)
    if counts.shape[-1] == size:
        return counts
    resized: Tensor = F.interpolate(
        counts.flatten(0, 1), size=(size, size), mode="bilinear", align_corners=False
    ).unflatten(0, counts.shape[:2])
    return resized
