"""The digits as an event camera sees them; this module simulates the AEDAT 2.0 files once.

The files are `<root>/<class>/digit_<number>.aedat`, as in CIFAR10-DVS. A recording has the number
of its image in `digits`, and the test set is the same: the last 360.
"""

import os
import shutil
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from saformer.data.cache import fingerprint
from saformer.data.progress import progress
from saformer.data.readers import digits
from saformer.data.readers.aedat2 import check_aedat2, read_aedat2, write_aedat2
from saformer.data.recordings import Recordings, read_recordings
from saformer.data.settings import DatasetConfig
from saformer.data.simulate import VIEW, record
from saformer.data.source import Source
from saformer.errors import DataError, require


def read(config: DatasetConfig, timesteps: int) -> Source:
    """Read the recordings as frames; simulate them first if they do not exist.

    Raises:
        DataError: The recordings cannot be written, or their folder holds something else.
    """
    simulate(config)
    return read_recordings(config, index(config), timesteps)


def simulate(config: DatasetConfig) -> None:
    """Simulate recordings of all digits in `dataset.root`, unless this folder exists already.

    The files are written to a temporary folder, which is renamed when it is complete.

    Raises:
        DataError: The files cannot be written.
    """
    root = _root(config)
    try:
        if os.path.lexists(root):  # before we take the lock, so that a read-only disk works
            return
        root.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{root}.lock"):
            if not os.path.lexists(root):
                _simulate(config, root)
    except OSError as error:
        fix = "Make room or permit writing there, or set dataset.root to another folder."
        reason = error.strerror or str(error)
        raise DataError(root, "a place to write recordings to", reason, fix) from error


def _simulate(config: DatasetConfig, root: Path) -> None:
    """Simulate all recordings; the caller holds the lock."""
    part = root.with_name(f".{root.name}.simulating")  # no other process uses it: we hold the lock
    if os.path.isdir(part):  # left by a simulation that was killed
        shutil.rmtree(part)
    images, labels = digits.load()
    part.mkdir()
    try:
        paths = progress(_paths(part, labels), f"{config.name}: recordings")
        for number, path in enumerate(paths):
            path.parent.mkdir(exist_ok=True)
            write_aedat2(path, record(images[number], seed=number))
        os.replace(part, root)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _root(config: DatasetConfig) -> Path:
    """The folder of the recordings; it need not exist."""
    rule = "be a folder, into which the recordings are simulated"
    require(config.root is not None, "dataset.root", rule, "null")
    return Path(config.root or "")


def _paths(root: Path, labels: NDArray[np.int64]) -> list[Path]:
    """The file of each digit."""
    return [root / str(label) / f"digit_{i}.aedat" for i, label in enumerate(labels)]


def index(config: DatasetConfig) -> Recordings:
    """Find the recordings, but simulate none.

    Raises:
        DataError: Some or all recordings are missing.
    """
    _, labels = digits.load()
    root = _root(config)
    paths = _paths(root, labels)
    if not os.path.lexists(root):
        fix = f"They are simulated when first used, or now by: saformer-data build {config.name}"
        raise DataError(root, f"{len(paths)} recordings", "no such folder", fix)
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise DataError(
            root,
            f"{len(paths)} simulated recordings",
            f"{len(paths) - len(missing)} (the first missing: {missing[0].relative_to(root)})",
            "Move the folder away, or set dataset.root to a new one: they are simulated again.",
        )
    for path in paths:
        check_aedat2(path)
    names = [str(number) for number in range(len(paths))]
    return Recordings(
        sensor=VIEW,
        names=names,
        paths=paths,
        labels=labels,
        test=np.arange(len(paths)) >= len(paths) - digits.NUM_TEST,
        fingerprint=fingerprint(
            (name, path.stat().st_size) for name, path in zip(names, paths, strict=True)
        ),
        load=lambda number: read_aedat2(paths[number]),
    )
