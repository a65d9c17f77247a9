"""Tiny-ImageNet (tiny-imagenet-200.zip), as downloaded or with val/ sorted into class folders.

The training images are train/<wnid>/images/*.JPEG. The others are either val/images/*.JPEG with a
table val_annotations.txt, or val/<wnid>/. The class number is the rank of the wnid in sorted order.
The labels of test/ were never published, so val is the test set. All images are decoded once, into
a memory-mapped cache of 1.35 GB.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from saformer.data.cache import build_once, cache_dir_of, fingerprint, new_array, open_array
from saformer.data.decode import decode
from saformer.data.image_files import ImageIndex, class_folders, image_names
from saformer.data.progress import progress
from saformer.data.settings import DatasetConfig
from saformer.data.source import Source
from saformer.errors import DataError

FOLDER = "tiny-imagenet-200"
SIDE = 64  # pixels
PER_CLASS = {"train": 500, "val": 50}
ANNOTATIONS = "val_annotations.txt"
UNPACK = f"Unpack {FOLDER}.zip again."


def read(config: DatasetConfig, timesteps: int) -> Source:
    """Return all images, 64x64 RGB; the first call builds the cache.

    Raises:
        DataError: Files are missing, damaged or of another size, or the cache cannot be written.
    """
    listed = index(config)
    shape = (len(listed.files), 3, SIDE, SIDE)
    key = {"dataset": config.name, "source": listed.fingerprint, "size": SIDE}

    def build(folder: Path) -> dict[str, Any]:
        images = new_array(folder / "images.npy", shape)
        for i, file in enumerate(progress(listed.files, f"{config.name}: images")):
            image = decode(listed.root / file)
            if image.shape[1:] != shape[2:]:
                height, width = image.shape[1:]
                expected = f"an image of {SIDE}x{SIDE} pixels"
                raise DataError(listed.root / file, expected, f"{height}x{width}", UNPACK)
            images[i] = image
        images.flush()
        return {}

    folder = build_once(cache_dir_of(config), config.name, key, int(np.prod(shape)), build)
    return Source(
        x=torch.from_numpy(open_array(folder / "images.npy")),
        y=torch.from_numpy(listed.labels),
        train=np.flatnonzero(~listed.test),
        test=np.flatnonzero(listed.test),
        names=listed.names,
        facts={"fingerprint": listed.fingerprint, "cache": folder.name},
    )


def index(config: DatasetConfig) -> ImageIndex:
    """List the images and check classes, counts and empty files, without decoding any image.

    The function looks in `dataset.root` and in the archive's folder below it.

    Raises:
        DataError: Files or classes are missing, or do not belong to this dataset.
    """
    inside = Path(config.root or "") / FOLDER
    root = inside if os.path.isdir(inside) else inside.parent
    if not os.path.isdir(root / "train"):
        fix = "Run: saformer-data fetch tiny_imagenet, or set dataset.root to where it is."
        raise DataError(root, "train/ and val/ of Tiny-ImageNet", "no train/", fix)
    classes = _classes(root, config)
    parts = {"train": _by_class(root, "train", classes), "val": _val(root, classes)}
    files: list[str] = []
    names: list[str] = []
    labels: list[int] = []
    for part, images in parts.items():
        for label, name in enumerate(classes):
            if len(images[name]) != PER_CLASS[part] and not config.allow_incomplete:
                expected = f"{PER_CLASS[part]} images of {name}"
                fix = f"{UNPACK} Or set dataset.allow_incomplete=true."
                raise DataError(root / part, expected, f"{len(images[name])}", fix)
            files += images[name]
            names += [f"{part}/{name}/{os.path.basename(file)}" for file in images[name]]
            labels += [label] * len(images[name])
    sizes = [_size(f"{root}/{file}") for file in files]
    return ImageIndex(
        root,
        files,
        names,
        labels=np.array(labels, dtype=np.int64),
        test=np.array([name.startswith("val/") for name in names]),
        fingerprint=fingerprint(zip(names, sizes, strict=True)),
    )


def _classes(root: Path, config: DatasetConfig) -> list[str]:
    """The sorted wnids from wnids.txt, or without this file from the training folders."""
    path, folders = root / "wnids.txt", class_folders(root / "train")
    listed = os.path.isfile(path)
    classes = (
        sorted(path.read_text(encoding="utf-8", errors="replace").split()) if listed else folders
    )
    if len(classes) != config.num_classes:
        expected = f"{config.num_classes} classes (dataset.num_classes)"
        raise DataError(path if listed else root / "train", expected, f"{len(classes)}", UNPACK)
    _require_known(root / "train", folders, classes)
    return classes


def _size(file: str) -> int:
    """Bytes of an image file, which must not be empty."""
    try:
        size = os.stat(file).st_size
    except OSError as error:
        raise DataError(file, "a readable file", str(error.strerror), "Check it.") from None
    if not size:
        raise DataError(file, "an image", "an empty file", UNPACK)
    return size


def _require_known(folder: Path, found: list[str], classes: list[str]) -> None:
    unknown = sorted(set(found) - set(classes))
    if unknown:
        expected = f"only folders of the {len(classes)} classes"
        raise DataError(folder, expected, f"also {unknown[0]}", "Move it elsewhere.")


def _by_class(root: Path, part: str, classes: list[str]) -> dict[str, list[str]]:
    """Images of each class in <wnid>/images/, or if that does not exist in <wnid>/."""
    files: dict[str, list[str]] = {name: [] for name in classes}
    for name in classes:
        inside = f"{part}/{name}/images"
        folder = inside if os.path.isdir(root / inside) else f"{part}/{name}"
        if os.path.isdir(root / folder):
            files[name] = [f"{folder}/{image}" for image in image_names(root / folder)]
    return files


def _val(root: Path, classes: list[str]) -> dict[str, list[str]]:
    """Images of each class in val/; their classes come from a table or from the folder names."""
    val, path = root / "val", root / "val" / ANNOTATIONS
    flat = image_names(val / "images") if os.path.isdir(val / "images") else []
    if not flat:
        _require_known(val, [name for name in class_folders(val) if name != "images"], classes)
        return _by_class(root, "val", classes)
    try:
        rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        fix = f"{UNPACK} Only this file contains the class of each image."
        raise DataError(path, "a table of the images in val/images", "none", fix) from None
    table = {row[0]: row[1] for row in rows if len(row) > 1}
    files: dict[str, list[str]] = {name: [] for name in classes}
    for image in flat:
        label = table.get(image)
        if label not in files:
            found = f"{label or 'nothing'} for {image}"
            raise DataError(path, "a class of wnids.txt for every image", found, UNPACK)
        files[label].append(f"val/images/{image}")
    return files
