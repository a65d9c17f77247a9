"""Decode one image file to pixels: with torchcodec if it is installed, otherwise with Pillow.

Both give exactly the same pixels, except for 16-bit PNGs. Both rotate a picture upright by its EXIF
orientation: torchcodec always does this, but torchvision's image loader does not.
"""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from saformer.errors import DataError

try:
    from torchcodec.decoders import decode_image

    DECODER = "torchcodec"
except (ImportError, OSError, RuntimeError):  # absent, older than 0.16, or built for another torch
    DECODER = "pillow"

KINDS = {b"\xff\xd8": "JPEG", b"\x89PNG": "PNG"}


def decode(path: Path) -> Tensor:
    """Read an image of any kind (grey, CMYK, a PNG that is named .JPEG) as RGB.

    Returns:
        uint8 [3, H, W].

    Raises:
        DataError: The file cannot be read, is not an image, or is truncated.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(path, "a readable file", str(error.strerror), "Check it.") from None
    try:
        return decode_image(data, mode="RGB") if DECODER == "torchcodec" else _pillow(data)
    except Exception:  # what a damaged file raises depends on where it is damaged
        kind = next((name for magic, name in KINDS.items() if data.startswith(magic)), None)
        found = f"a {kind} of {len(data)} bytes that is damaged or cut off"
        if kind is None:
            found = f"{len(data)} bytes that begin {data[:16]!r}" if data else "an empty file"
        raise DataError(path, "an image", found, "Remove it and get it again.") from None


def _pillow(data: bytes) -> Tensor:
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)
