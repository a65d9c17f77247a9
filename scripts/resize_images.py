"""Copy a folder of images with their shorter side at 256 pixels: `python -m scripts.resize_images`.

For ImageNet, whose images are decoded anew in every epoch: smaller ones are decoded faster, for
training at 224 pixels or less. Needs about 31 GB. The layout is kept, the source is only read, and
a copy that was stopped goes on where it was.
"""

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch
from PIL import Image

from saformer.data.decode import decode
from saformer.data.image_files import is_image, shorter_side
from saformer.data.progress import progress
from saformer.errors import DataError, SettingError, UserError, require

SIDE = 256  # pixels
QUALITY = 90  # of the JPEGs
CHUNK = 64  # images that a process is given at a time


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m scripts.resize_images", description=__doc__)
    parser.add_argument("source", type=Path, help="folder of images, at any depth; only read")
    parser.add_argument("target", type=Path, help="folder to write the copy to")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    args = parser.parse_args()
    try:
        count = resize_folder(args.source, args.target, args.workers)
    except (UserError, OSError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command goes on from here")
    print(f"{count} images written to {args.target}")


def resize_folder(source: Path, target: Path, workers: int) -> int:
    """Copy what the target does not have yet.

    Args:
        source: Folder of images, at any depth.
        target: Folder of the copy.
        workers: Processes.

    Returns:
        Number of images written.

    Raises:
        SettingError: The target is the source, or in it.
        DataError: There is no image, or one is damaged.
    """
    require(workers >= 1, "--workers", "be at least 1", workers)
    require(workers <= 1024, "--workers", "be at most 1024", workers)
    if target.resolve().is_relative_to(source.resolve()):
        raise SettingError(f"target must not be in the source {source}, which is only read")
    names = list(_images(source))
    if not names:
        raise DataError(source, "a folder of images", "none", "Name the folder of train/ and val/.")
    left = [name for name in names if not (target / name).exists()]
    chunks = [left[i : i + CHUNK] for i in range(0, len(left), CHUNK)]
    for folder in {(target / name).parent for name in left}:
        folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers, initializer=_start_worker) as pool:
        try:
            jobs = [pool.submit(_resize_all, source, target, chunk) for chunk in chunks]
            for job in progress(as_completed(jobs), "resizing", total=len(jobs)):
                job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return len(left)


def _start_worker() -> None:
    """One thread, and no answer to Ctrl-C, which is the main process's to give."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _images(source: Path) -> Iterator[str]:
    """Names of all images below a folder."""
    for folder, _, files in os.walk(source):
        for file in files:
            if is_image(file):
                yield os.path.relpath(os.path.join(folder, file), source)


def _resize_all(source: Path, target: Path, names: list[str]) -> None:
    """Copy some images, each of which is there as a whole or not at all."""
    for name in names:
        image = decode(source / name)
        path = target / name
        part = path.with_name(f".{path.name}.part")
        if min(image.shape[1:]) <= SIDE:
            shutil.copyfile(source / name, part)
        else:
            pixels = shorter_side(image, SIDE).permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(part, "JPEG", quality=QUALITY)
        os.replace(part, path)


if __name__ == "__main__":
    main()
