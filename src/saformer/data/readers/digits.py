"""The 8x8 digits that come with the package (`assets/digits.LICENSE.md` names their source).

The last 360 images are always the test set. The file is sorted by writer, so most of the writers of
these images do not occur in the training set.
"""

from importlib import resources

import numpy as np
import torch
from numpy.typing import NDArray

from saformer.data.settings import DatasetConfig
from saformer.data.source import Source, in_two_parts

NUM_TEST = 360


def load() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images [N, 8, 8], their 17 grey levels stretched to 0..255, and class numbers [N]."""
    asset = resources.files("saformer.data") / "assets" / "digits.npz"
    with asset.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        images = np.rint(arrays["images"] * (255 / 16)).astype(np.uint8)
        return images, arrays["labels"].astype(np.int64)


def read(config: DatasetConfig, timesteps: int) -> Source:
    """Read the digits."""
    images, labels = load()
    x, y = torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels)
    return in_two_parts(x[:-NUM_TEST], y[:-NUM_TEST], x[-NUM_TEST:], y[-NUM_TEST:])
