"""A file of weights, of whoever: a regular file that unpacks to no more than it is, and whole.

torch looks at none of it: it waits at a pipe, unpacks what a few bytes claim to be, and takes zeros
for the weights that were written.
"""

import zipfile
from pathlib import Path
from typing import Any

from torch import Tensor, layout, strided

MOST_VALUES = 10**6  # of a network of 10,000 layers with the moments of its optimizer: 10**5
MOST_DEEP = 100


def require_regular(path: Path) -> None:
    """Refuse a pipe, a device or a socket, at which reading would wait or never end.

    Raises:
        ValueError: It is one.
    """
    if not path.is_file():
        raise ValueError("it is no regular file")


def require_whole(path: Path) -> None:
    """Compare the checksums in an archive of torch, of which each member is stored as it is.

    Raises:
        ValueError: It claims to unpack to more than it is.
        zipfile.BadZipFile: It is no archive, or a checksum is wrong.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        unpacked = sum(member.file_size for member in members)
        packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
        if packed or unpacked > path.stat().st_size:
            raise ValueError(
                f"it would unpack to {unpacked} bytes, which torch does not write into "
                f"{path.stat().st_size}"
            )
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"wrong checksum of {damaged}")


def require_dense(content: Any) -> None:
    """Refuse values that are more than the file holds: nested without end, or of repeated parts.

    Args:
        content: What torch read, with `weights_only=True`.

    Raises:
        ValueError: It is such.
    """
    left, seen = [(content, 0)], 0
    while left:
        node, depth = left.pop()
        seen += 1
        if seen > MOST_VALUES or depth > MOST_DEEP:
            raise ValueError("it holds lists within lists without end")
        if isinstance(node, Tensor):
            _require_values(node)
        elif isinstance(node, dict):
            left += [(each, depth + 1) for each in node.values()]
        elif isinstance(node, list | tuple | set):
            left += [(each, depth + 1) for each in node]


def _require_values(tensor: Tensor) -> None:
    """A tensor holds each of its values: none is empty, sparse, or one value told many times."""
    kind: layout = tensor.layout
    ok = kind is strided and tensor.device.type == "cpu" and not tensor.is_quantized
    if not ok or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"it holds a tensor {list(tensor.shape)} without its values")
