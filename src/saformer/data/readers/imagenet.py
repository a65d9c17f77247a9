"""ImageNet as folders of images: train/<wnid>/*.JPEG and val/<wnid>/*.JPEG.

The class number is the rank of the wnid in sorted order, as in other libraries. The reader also
reads other image datasets in this layout with `dataset.num_classes` classes. The number of images
is checked only for 1000 classes, which means ImageNet-1k.
"""

import os
from pathlib import Path

import numpy as np
import torch

from saformer.data.decode import DECODER
from saformer.data.image_files import ImageFiles, ImageIndex, class_folders, image_names
from saformer.data.settings import DatasetConfig
from saformer.data.source import Source
from saformer.errors import DataError

NUM_CLASSES = 1000  # of ImageNet-1k
NUM_IMAGES = {"train": 1_281_167, "val": 50_000}
UNPACK = "Unpack the archive again into one folder per class."
SORT = "Sort them into folders by class: valprep.sh of soumith/imagenetloader.torch does it."


def read(config: DatasetConfig, timesteps: int) -> Source:
    """Return all images as files, which are decoded batch by batch; val is the test set.

    Raises:
        DataError: A folder is missing, or has wrong classes or a wrong number of images.
    """
    images = index(config)
    files = np.array([os.fsencode(name) for name in images.files])
    return Source(
        x=ImageFiles(images.root, files, config.image_size, config.crop_pct),
        y=torch.from_numpy(images.labels),
        train=np.flatnonzero(~images.test),
        test=np.flatnonzero(images.test),
        names=images.names,
        facts={"decoder": DECODER},
    )


def index(config: DatasetConfig) -> ImageIndex:
    """List the images and check classes and counts, without opening any image.

    Raises:
        DataError: See `read`.
    """
    root = Path(config.root or "")
    classes = class_folders(root / "train")
    if len(classes) != config.num_classes:
        expected = f"{config.num_classes} class folders (dataset.num_classes)"
        raise DataError(root / "train", expected, f"{len(classes)}", UNPACK)
    _require_same_classes(root / "val", classes)
    names: list[str] = []
    labels: list[int] = []
    starts = {}
    for part in ("train", "val"):
        starts[part] = len(names)
        for label, name in enumerate(classes):
            images = image_names(root / part / name)
            if not images and not config.allow_incomplete:
                raise DataError(root / part / name, "images", "none", UNPACK)
            names += [f"{part}/{name}/{image}" for image in images]
            labels += [label] * len(images)
        count, expected_count = len(names) - starts[part], NUM_IMAGES[part]
        whole = config.num_classes != NUM_CLASSES or count == expected_count
        if not whole and not config.allow_incomplete:
            fix = f"{UNPACK} Or set dataset.allow_incomplete=true."
            raise DataError(root / part, f"{expected_count} images", f"{count}", fix)
    test = np.arange(len(names)) >= starts["val"]
    return ImageIndex(root, names, names, np.array(labels, dtype=np.int64), test)


def _require_same_classes(val: Path, classes: list[str]) -> None:
    """Refuse a val/ that has no class folders, or other ones than train/."""
    folders = class_folders(val)
    if not folders:
        found = f"{len(image_names(val))} images in no class folder"
        raise DataError(val, f"the {len(classes)} class folders of train/", found, SORT)
    others = sorted(set(folders) ^ set(classes))
    if others:
        found = (
            f"{len(folders)}, of which {others[0]} is "
            f"{'new' if others[0] in folders else 'missing'}"
        )
        raise DataError(val, f"the {len(classes)} class folders of train/", found, UNPACK)
