"""CIFAR-10 and CIFAR-100 from the official python files (cs.toronto.edu/~kriz/cifar.html).

The files are pickles, and a pickle can run code when it is loaded. This reader therefore allows
only the types that these files contain: dictionaries, lists, strings, bytes and arrays of numbers.
"""

import os
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from saformer.data.settings import DatasetConfig
from saformer.data.source import Source, in_two_parts
from saformer.errors import DataError


class Layout(NamedTuple):
    """The files and keys of one of the two datasets."""

    folder: str
    """Folder that the archive unpacks to."""
    train: tuple[str, ...]
    """Training files."""
    test: str
    """Test file."""
    labels: str
    """Key of the class numbers."""
    classes: int
    """Number of classes K."""


def _encode(text: str, encoding: str) -> bytes:
    """Stand in for `_codecs.encode`, with which Python 3 pickles bytes for Python 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for text in {encoding}, which no CIFAR file does")
    return text.encode(encoding)


# All objects that numpy puts into these pickles, under the module names of old and new numpy.
ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
    **{
        (module, "_reconstruct"): np.empty(0).__reduce__()[0]
        for module in ("numpy.core.multiarray", "numpy._core.multiarray")
    },
}


def read_cifar(config: DatasetConfig, layout: Layout) -> Source:
    """Read all images, 32x32 RGB, with their class numbers.

    The function looks in `dataset.root` and in the archive's folder below it.

    Args:
        config: Settings of the dataset.
        layout: Files and keys of the dataset.

    Raises:
        DataError: A file is missing, truncated, or not a CIFAR file.
    """
    root = Path(config.root or "")
    fix = f"Run: saformer-data fetch {config.name}, or set dataset.root to where they are."
    inside = root / layout.folder
    # os.path.isdir, because Path.is_dir raises in folders without permission.
    folder = inside if os.path.isdir(inside) else root
    files = (*layout.train, layout.test)
    missing = [name for name in files if not os.path.isfile(folder / name)]
    if missing:
        found = f"{len(files) - len(missing)} (the first missing: {missing[0]})"
        raise DataError(folder, f"{len(files)} files of {config.name}", found, fix)
    batches = [_batch(folder / name, layout) for name in layout.train]
    train_x, train_y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return in_two_parts(train_x, train_y, *_batch(folder / layout.test, layout))


def _batch(path: Path, layout: Layout) -> tuple[Tensor, Tensor]:
    """Images and class numbers of one file."""
    fix = "Remove it and unpack the archive again."
    try:
        with path.open("rb") as file:
            batch = _Unpickler(file, encoding="latin1").load()
    except OSError as error:
        raise DataError(path, "a readable file", str(error.strerror), "Check it.") from None
    except Exception as error:  # a damaged pickle can raise any exception
        found = f"what cannot be read ({str(error).partition(chr(10))[0] or type(error).__name__})"
        raise DataError(path, "a CIFAR file", found, fix) from None
    if not isinstance(batch, dict) or not {"data", layout.labels} <= batch.keys():
        keys = f"keys {sorted(map(str, batch))}" if isinstance(batch, dict) else "something else"
        raise DataError(path, f"data and {layout.labels}", keys, fix)
    x, y = np.asarray(batch["data"]), np.asarray(batch[layout.labels])
    if x.dtype != np.uint8 or x.ndim != 2 or x.shape[1] != 3072 or y.shape != x.shape[:1]:
        shapes = f"{x.dtype} {x.shape} and {y.shape}"
        raise DataError(path, "uint8 (n, 3072) and n class numbers", shapes, fix)
    if not len(y) or y.dtype.kind != "i" or y.min() < 0 or y.max() >= layout.classes:
        found = f"{y.min()} to {y.max()}" if len(y) else "none"
        raise DataError(path, f"class numbers 0 to {layout.classes - 1}", found, fix)
    images = x.reshape(-1, 3, 32, 32)
    return torch.from_numpy(images.copy()), torch.from_numpy(y.astype(np.int64))


class _Unpickler(pickle.Unpickler):
    """An unpickler that builds arrays and plain values, and refuses all other objects."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR file does")
        return ALLOWED[module, name]
