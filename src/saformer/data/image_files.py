"""Images that stay files on the disk: list them, decode them and make them square.

N images, S side of the square, H W height and width of a file's image.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from saformer.data.decode import decode
from saformer.errors import DataError

SUFFIXES = (".jpeg", ".jpg", ".png")
ASPECT = (3 / 4, 4 / 3)  # width over height of a random crop, before it is resized
ATTEMPTS = 10  # draws of a crop that may not fit into the image


@dataclass(frozen=True)
class ImageIndex:
    """An index of image files: everything that is known before any image is decoded."""

    root: Path
    """Folder that contains `files`."""
    files: list[str]
    """The file of each image, relative to the root."""
    names: list[str]
    """Unique names `<part>/<class>/<file>`, sorted; they do not depend on the folder layout."""
    labels: NDArray[np.int64]
    """Class numbers [N]: the rank of the class folder's name among all."""
    test: NDArray[np.bool_]
    """Mask of the test images [N]."""
    fingerprint: str | None = None
    """Digest of names and sizes, if a cache is built from the files."""


def class_folders(folder: Path) -> list[str]:
    """Sorted names of the folders in a folder, without hidden ones.

    Raises:
        DataError: The folder does not exist or cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    except OSError as error:
        fix = "Set dataset.root to the folder that holds train/ and val/."
        raise DataError(folder, "a folder of images", str(error.strerror), fix) from None


def is_image(name: str) -> bool:
    """Whether a file name is that of an image; hidden files do not count."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def image_names(folder: Path) -> list[str]:
    """Sorted names of the images in a folder; files are not opened, for there may be a million.

    Raises:
        DataError: The folder cannot be read.
    """
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise DataError(folder, "a readable folder", str(error.strerror), "Check it.") from None
    return sorted(filter(is_image, names))


@dataclass(frozen=True)
class ImageFiles:
    """All images of a dataset; each is decoded when it is requested."""

    root: Path
    """Folder that contains `files`."""
    files: NDArray[np.bytes_]
    """The file of each image [N]; an array, because every worker would in time copy a list."""
    size: int
    """Side S of the square that every image becomes."""
    crop_pct: float
    """Share of the shorter side that is kept for evaluation."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """[N, 3, S, S], the shape of the tensor of all images."""
        return len(self.files), 3, self.size, self.size

    def decode(self, item: int) -> Tensor:
        """Decode one image at its original size, uint8 [3, H, W].

        Raises:
            DataError: The file is not a readable image.
        """
        return decode(self.root / os.fsdecode(self.files[item]))


def random_crop(
    height: int, width: int, area: tuple[float, float], rng: Generator
) -> tuple[slice, slice]:
    """Draw rows and columns of a random part of an image, as torchvision's RandomResizedCrop does.

    Args:
        height: Height H of the image.
        width: Width W of the image.
        area: Smallest and largest share of the image's area.
        rng: Source of the draws.

    Returns:
        A part whose ratio of width to height is log-uniform in 3/4..4/3. If none of ten draws fits,
        the largest such part in the middle of the image.
    """
    low, high = np.log(ASPECT)
    for _ in range(ATTEMPTS):
        pixels = height * width * rng.uniform(*area)
        aspect = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            return slice(top, top + h), slice(left, left + w)
    w = min(width, round(height * ASPECT[1]))
    h = min(height, round(width / ASPECT[0]))
    top, left = (height - h) // 2, (width - w) // 2
    return slice(top, top + h), slice(left, left + w)


def centre_crop(image: Tensor, size: int, crop_pct: float) -> Tensor:
    """Resize the shorter side of an image to size / crop_pct and cut out the middle, as timm does.

    Args:
        image: uint8 [3, H, W].
        size: Side S of the result.
        crop_pct: Share of the shorter side that is kept.

    Returns:
        uint8 [3, S, S].
    """
    image = shorter_side(image, math.floor(size / crop_pct))
    top, left = (round((side - size) / 2) for side in image.shape[-2:])
    return image[:, top : top + size, left : left + size]


def shorter_side(image: Tensor, side: int) -> Tensor:
    """Resize so that the shorter side has this many pixels and the aspect ratio stays."""
    height, width = image.shape[-2:]
    short = min(height, width)
    return resize(image, side * height // short, side * width // short)


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Resize uint8 [3, H, W] bicubically with antialiasing."""
    return F.interpolate(image[None], (height, width), mode="bicubic", antialias=True)[0]
