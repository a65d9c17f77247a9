"""Check a file of weights, which may come from a stranger, before we trust it.

torch makes none of these checks: it waits forever at a pipe, it allocates any size that a few bytes
claim, and it loads damaged weights without an error.
"""

import zipfile
from pathlib import Path
from typing import Any

from torch import Tensor, layout, strided

MOST_VALUES = 10**6  # a network of 10,000 layers with the moments of its optimizer has 10**5
MOST_DEEP = 100


def require_regular(path: Path) -> None:
    """Refuse a pipe, a device or a socket, because reading from it might never end.

    Raises:
        ValueError: The path is not a regular file.
    """
    if not path.is_file():
        raise ValueError("it is not a regular file")


def require_whole(path: Path) -> None:
    """Verify the checksums in a torch archive, whose members must be stored uncompressed.

    Raises:
        ValueError: The archive would unpack to more bytes than the file has.
        zipfile.BadZipFile: The file is not an archive, or a checksum is wrong.
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
    """Refuse content that is larger than the file: endless nesting, or tensors without data.

    Args:
        content: What torch loaded with `weights_only=True`.

    Raises:
        ValueError: The content is of this kind.
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
            left += [(inner, depth + 1) for inner in node.values()]
        elif isinstance(node, list | tuple | set):
            left += [(inner, depth + 1) for inner in node]


def _require_values(tensor: Tensor) -> None:
    """Refuse a tensor that does not store each of its values, such as a sparse or expanded one."""
    kind: layout = tensor.layout
    ok = kind is strided and tensor.device.type == "cpu" and not tensor.is_quantized
    if not ok or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"it holds a tensor {list(tensor.shape)} without its values")
