"""Writes small image sets in the layouts of Tiny-ImageNet and ImageNet, and idx files."""

import struct
from pathlib import Path

import numpy as np
from PIL import Image

WNIDS = ("n01443537", "n01629819", "n01641577", "n01644900")


def picture(seed: int, height: int = 64, width: int = 64) -> Image.Image:
    """A smooth picture with some grain, another one for every seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int64)
    grain = rng.integers(-9, 10, smooth.shape)
    return Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8))


def save(path: Path, image: Image.Image, kind: str = "JPEG") -> None:
    """Write a file, and the folders that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, kind, **({"quality": 95} if kind == "JPEG" else {}))


def pixels(path: Path) -> np.ndarray:
    """What Pillow alone makes of a file: uint8 [3, H, W]."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


def write_tiny(root: Path, train: int = 3, val: int = 2, layout: str = "downloaded") -> Path:
    """Tiny-ImageNet of four classes.

    Args:
        root: Folder to write to.
        train: Training images of a class.
        val: Validation images of a class.
        layout: How val/ lies: "downloaded", or "sorted" by class, or "sorted deep" with images/.
    """
    lines = []
    for label, wnid in enumerate(WNIDS):
        for i in range(train):
            path = root / "train" / wnid / "images" / f"{wnid}_{i}.JPEG"
            save(path, picture(100 * label + i))
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("0\t0\t63\t63\n")
        for i in range(val):
            number = i * len(WNIDS) + (label + 1) % len(WNIDS)  # not in the order of the classes
            name = f"val_{number}.JPEG"
            folder = {
                "downloaded": Path("images"),
                "sorted": Path(wnid),
                "sorted deep": Path(wnid) / "images",
            }[layout]
            save(root / "val" / folder / name, picture(1000 + number))
            lines.append(f"{name}\t{wnid}\t0\t32\t44\t62\n")
    if layout == "downloaded":
        (root / "val" / "val_annotations.txt").write_text("".join(sorted(lines)))
    # The official list is not in sorted order.
    (root / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in reversed(WNIDS)))
    save(root / "test" / "images" / "test_0.JPEG", picture(0))
    return root


def write_imagenet(root: Path, train: int = 6, val: int = 2) -> Path:
    """ImageNet of four classes, with pictures of many shapes."""
    for label, wnid in enumerate(WNIDS):
        for i in range(train):
            shape = (40 + 7 * i, 50 + 3 * label)
            save(root / "train" / wnid / f"{wnid}_{i}.JPEG", picture(100 * label + i, *shape))
        for i in range(val):
            number = i * len(WNIDS) + label
            name = f"ILSVRC2012_val_{number + 1:08d}.JPEG"
            save(root / "val" / wnid / name, picture(1000 + number, 45, 60))
    return root


def idx(array: np.ndarray) -> bytes:
    """The array in the official idx format: unsigned bytes after big-endian counts."""
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()
