"""CIFAR10-DVS: a DVS128 recorded 10,000 moving images of CIFAR-10 (figshare, article 4724671).

Each class is one zip archive, which unpacks to a folder of a thousand AEDAT 2.0 files, such as
`bird/cifar10_bird_0.aedat` to `_999`.
"""

import os
import statistics
import zipfile
from pathlib import Path

import numpy as np

from saformer.data.cache import fingerprint
from saformer.data.events import Events
from saformer.data.readers.aedat2 import SENSOR, check_aedat2, read_aedat2
from saformer.data.recordings import Recordings, event_settings, read_recordings
from saformer.data.settings import BadRecordings, DatasetConfig
from saformer.data.source import Source
from saformer.errors import DataError

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
PER_CLASS = 1000
TINY = 0.01  # a file below this share of the median size of its class is truncated
FETCH = "saformer-data fetch cifar10_dvs"


def read(config: DatasetConfig, timesteps: int) -> Source:
    """Return the frames of all recordings; the first call builds them (`read_recordings`).

    Raises:
        DataError: Files are missing or damaged.
        SettingError: The split is impossible, or frames would be larger than the sensor.
    """
    return read_recordings(config, index(config), timesteps)


def index(config: DatasetConfig) -> Recordings:
    """Find the recordings by class and number, and check them by header and size.

    Raises:
        DataError: A class or a recording is missing, or a file cannot be a whole recording.
    """
    root = Path(config.root or "")
    files = {name: _files(root / name) for name in CLASSES}
    if not any(files.values()):
        raise _nothing(root)
    faults: dict[Path, DataError] = {}
    for name, in_class in files.items():
        if len(in_class) < PER_CLASS and not config.allow_incomplete:
            raise _incomplete(root / name, in_class)
        faults |= _faults(root, name, in_class, compare=not config.allow_incomplete)
    if faults and event_settings(config).bad_recordings is BadRecordings.error:
        raise next(iter(faults.values()))
    paths = [path for in_class in files.values() for path in in_class]

    def load(i: int) -> Events:
        if paths[i] in faults:
            raise faults[paths[i]]
        return read_aedat2(paths[i])

    return Recordings(
        sensor=SENSOR,
        names=[path.stem for path in paths],
        paths=paths,
        labels=np.repeat(np.arange(len(CLASSES)), [len(paths) for paths in files.values()]),
        test=None,
        # Damaged files count with size -1, because they are left out of the frames.
        fingerprint=fingerprint((p.stem, -1 if p in faults else _size(p)) for p in paths),
        load=load,
    )


def _files(folder: Path) -> list[Path]:
    """Existing recordings of a class, sorted by number."""
    there = set(os.listdir(folder)) if os.path.isdir(folder) else set()
    # Go through the expected names, because the order of a file system's listing is arbitrary.
    return [folder / name for name in _expected(folder.name) if name in there]


def _expected(name: str) -> list[str]:
    """File names of a whole class, sorted by number."""
    return [f"cifar10_{name}_{i}.aedat" for i in range(PER_CLASS)]


def _nothing(root: Path) -> DataError:
    """Make the error that there is no recording."""
    zips = [folder / f"{name}.zip" for folder in _archives(root) for name in CLASSES]
    unpacked = sum(os.path.isfile(path) for path in zips)
    found = f"{unpacked} zip archives, not unpacked" if unpacked else "none"
    if not os.path.isdir(root):
        found = "no such folder"
    return DataError(
        root,
        f"folders {CLASSES[0]} to {CLASSES[-1]} with {PER_CLASS} recordings each",
        found,
        f"Run: {FETCH}, or set dataset.root to where they are.",
    )


def _archives(root: Path) -> tuple[Path, Path]:
    """Folders that may contain the archives."""
    return root / "download", root


def _fix(name: str) -> str:
    """What the user can do about an incomplete class."""
    again = f"Unpack {name}.zip again (or run: {FETCH})"
    return f"{again}, or set dataset.allow_incomplete=true to use what is there."


def _incomplete(folder: Path, paths: list[Path]) -> DataError:
    """Make the error that a class has too few recordings."""
    there = {path.name for path in paths}
    missing = next(name for name in _expected(folder.name) if name not in there)
    expected = f"{PER_CLASS} recordings of class {folder.name}"
    found = f"{len(paths)} (the first missing: {missing})"
    return DataError(folder, expected, found, _fix(folder.name))


def _faults(root: Path, name: str, paths: list[Path], compare: bool) -> dict[Path, DataError]:
    """Find the damaged recordings of a class by their headers and sizes.

    Args:
        root: Folder of the classes.
        name: Name of the class.
        paths: Recordings of the class.
        compare: Also find files that were truncated between two events. Such a file looks whole;
            only a comparison with its archive, or with the median of its class, shows the damage.
    """
    archive = _sizes_in_archive(root, name) if compare else {}
    sizes = {path: _size(path) for path in paths}
    median = statistics.median(sizes.values()) if sizes else 0
    faults = {}
    for path, size in sizes.items():
        whole = archive.get(path.name, size)
        expected = None
        if size != whole:
            expected = f"{whole} bytes as in {name}.zip"
        elif compare and size < TINY * median:
            expected = f"about {median:.0f} bytes, the median of its class"
        try:
            check_aedat2(path)
            if expected is not None:
                raise DataError(path, expected, f"{size} bytes", _fix(name))
        except DataError as error:
            faults[path] = error
    return faults


def _size(path: Path) -> int:
    """Bytes of a file; 0 if it cannot be opened, which `check_aedat2` reports."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _sizes_in_archive(root: Path, name: str) -> dict[str, int]:
    """Size of each file of a class according to its archive; empty without an archive."""
    for folder in _archives(root):
        try:
            with zipfile.ZipFile(folder / f"{name}.zip") as archive:
                return {Path(item.filename).name: item.file_size for item in archive.infolist()}
        except (OSError, zipfile.BadZipFile):  # no usable archive in this folder
            continue
    return {}
