"""From the bytes of a batch to the numbers that augmentation and the network take."""

import torch.nn.functional as F
from torch import Tensor

from saformer.data.events import normalise
from saformer.data.settings import DatasetConfig


def to_float(x: Tensor, dataset: DatasetConfig) -> Tensor:
    """Images in 0..1, or scaled counts of events at the size of the model.

    Args:
        x: Images [B, C, H, W], bytes or floats in 0..1; or event counts [B, T, 2, H, W].
        dataset: What they are of.
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
