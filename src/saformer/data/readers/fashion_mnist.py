"""Fashion-MNIST from its four idx files, in the folders of torchvision or Debian.

We do not use torchvision's reader for two reasons: Debian's files are compressed, in a folder that
users cannot write to; and our error names a truncated file and its number of bytes.
"""

import gzip
import math
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from saformer.data.archives import DEBIAN
from saformer.data.settings import DatasetConfig
from saformer.data.source import Source, in_two_parts
from saformer.errors import DataError

FIX = "Run: saformer-data fetch fashion_mnist, or apt-get install dataset-fashion-mnist (Debian)."


def read(config: DatasetConfig, timesteps: int) -> Source:
    """Read all 60,000 training and 10,000 test images, 28x28 grey.

    The function looks in `dataset.root`, in torchvision's folder below it, and in Debian's folder.

    Raises:
        DataError: A file is missing, truncated, or not an idx file.
    """
    root = Path(config.root or "")
    folders = [root / "FashionMNIST" / "raw", root, DEBIAN]
    arrays = {}
    for part in ("train", "t10k"):
        x = _idx(_find(f"{part}-images-idx3-ubyte", folders, root), (28, 28))
        y = _idx(_find(f"{part}-labels-idx1-ubyte", folders, root), ())
        if len(x) != len(y):
            raise DataError(
                root, f"as many images as labels in {part}", f"{len(x)} and {len(y)}", FIX
            )
        arrays[part] = (x.unsqueeze(1), y.long())
    return in_two_parts(*arrays["train"], *arrays["t10k"])


def _find(name: str, folders: list[Path], root: Path) -> Path:
    """The file in the first folder that has it, plain or compressed."""
    for folder in folders:
        for path in (folder / name, folder / f"{name}.gz"):
            if os.path.isfile(path):  # Path.is_file raises in folders without permission
                return path
    raise DataError(
        root,
        f"the Fashion-MNIST file {name}",
        f"none here, in FashionMNIST/raw or in {DEBIAN}",
        FIX,
    )


def _idx(path: Path, shape: tuple[int, ...]) -> Tensor:
    """Read a file of unsigned bytes in idx format: magic, counts, data.

    Args:
        path: The file; it is compressed if its suffix is .gz.
        shape: Shape of one item.
    """
    fix = f"Remove it and get it again. {FIX}"
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise DataError(path, "a whole gzip file", "a damaged one", fix) from None
    except OSError as error:
        raise DataError(path, "a readable file", str(error.strerror), "Check it.") from None
    header = 4 * (2 + len(shape))
    magic = 0x800 + 1 + len(shape)
    if len(data) < header or struct.unpack(">I", data[:4])[0] != magic:
        raise DataError(path, "an idx file", f"{len(data)} bytes that begin {data[:4]!r}", fix)
    count, *sides = struct.unpack(f">{1 + len(shape)}I", data[4:header])
    if tuple(sides) != shape or count == 0:
        raise DataError(path, f"items of {shape}", f"{count} of {tuple(sides)}", fix)
    expected = header + count * math.prod(shape)
    if len(data) != expected:
        raise DataError(path, f"{expected} bytes for {count} items", f"{len(data)} bytes", fix)
    array = np.frombuffer(data, np.uint8, offset=header).reshape(count, *shape)
    return torch.from_numpy(array.copy())
