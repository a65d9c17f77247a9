"""DVS128 Gesture: a DVS128 recorded 11 gestures of 29 people under several lights (IBM).

The folder DvsGesture holds for each person and light an AEDAT 3.1 file, such as
`user01_led.aedat`, and a table of the times of the gestures in it, `user01_led_labels.csv`. Two
lists name the files for training and for testing. Each row of a table is a clip. This gives 1176
clips for training and 288 for testing, as in SpikingJelly; the pre-cut dataset of tonic has other
clips, 1077 and 264.
"""

import os
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from saformer.data.cache import fingerprint
from saformer.data.events import Events
from saformer.data.readers.aedat31 import read_aedat31
from saformer.data.recordings import Recordings, read_recordings
from saformer.data.settings import DatasetConfig
from saformer.data.source import Source
from saformer.errors import DataError

SENSOR = 128
CLASSES = (
    "hand_clapping",
    "right_hand_wave",
    "left_hand_wave",
    "right_arm_clockwise",
    "right_arm_counter_clockwise",
    "left_arm_clockwise",
    "left_arm_counter_clockwise",
    "arm_roll",
    "air_drums",
    "air_guitar",
    "other_gestures",
)
"""Names from `gesture_mapping.csv`; the tables count classes from 1. In the last class, people
invented their own gestures."""
TRIALS = {"trials_to_train.txt": 1176, "trials_to_test.txt": 288}
"""Lists of files, and the number of clips in the files of each list."""
FOLDER = "DvsGesture"  # the archive unpacks to it
ARCHIVE = "DvsGesture.tar.gz"
UNPACK = f"Unpack {ARCHIVE} again (saformer-data fetch dvs128_gesture says how to get it)"


class Clip(NamedTuple):
    """One row of a table."""

    name: str
    """Name of the recording and number of the row."""
    path: Path
    """The recording that contains the clip."""
    label: int
    """Class number, from 0."""
    start: int
    """First microsecond of the clip."""
    end: int
    """First microsecond after the clip."""


def read(config: DatasetConfig, timesteps: int) -> Source:
    """Return the frames of all clips; the first call builds them (`read_recordings`).

    Raises:
        DataError: Files are missing or damaged.
        SettingError: The split is not the official one, or frames would be larger than the sensor.
    """
    return read_recordings(config, index(config), timesteps)


def index(config: DatasetConfig) -> Recordings:
    """Find the clips from the lists and tables, in their order; recordings are not read.

    Raises:
        DataError: A list, table or recording is missing or damaged, or clips are missing.
    """
    folder = _folder(Path(config.root or ""))
    parts = [_clips(folder, trials, config.allow_incomplete) for trials in TRIALS]
    clips = [clip for part in parts for clip in part]
    if not clips:
        raise DataError(folder, "the recordings in its lists", "none", f"{UNPACK}.")
    # The clips of a recording are loaded one after the other, so that caching one file is enough.
    recording = lru_cache(maxsize=1)(read_aedat31)
    return Recordings(
        sensor=SENSOR,
        names=[clip.name for clip in clips],
        paths=[clip.path for clip in clips],
        labels=np.array([clip.label for clip in clips], dtype=np.int64),
        test=np.repeat([False, True], [len(part) for part in parts]),
        fingerprint=fingerprint(
            (f"{clip.name} {clip.label} {clip.start} {clip.end}", clip.path.stat().st_size)
            for clip in clips
        ),
        load=lambda i: _cut(recording(clips[i].path), clips[i]),
    )


def _folder(root: Path) -> Path:
    """The folder with the lists: the archive's folder below the root, or the root."""
    for folder in (root / FOLDER, root):
        if any(os.path.isfile(folder / trials) for trials in TRIALS):
            return folder
    found = "no list" if os.path.isdir(root) else "no such folder"
    if any(os.path.isfile(folder / ARCHIVE) for folder in (root / "download", root)):
        found = f"{ARCHIVE}, not unpacked"
    raise DataError(
        root,
        f"{FOLDER} with {' and '.join(TRIALS)} and the recordings that they list",
        found,
        f"{UNPACK}, or set dataset.root to its folder.",
    )


def _clips(folder: Path, trials: str, allow_incomplete: bool) -> list[Clip]:
    """Clips of all recordings in a list, in the order of the list."""
    fix = f"{UNPACK}, or set dataset.allow_incomplete=true to use what is there."
    paths = [folder / line for line in _lines(folder / trials)]
    there = [path for path in paths if os.path.isfile(path)]
    if len(there) < len(paths) and not allow_incomplete:
        missing = next(path.name for path in paths if path not in there)
        found = f"{len(there)} (the first missing: {missing})"
        raise DataError(folder, f"the {len(paths)} recordings in {trials}", found, fix)
    clips = [clip for path in there for clip in _table(path)]
    if len(clips) != TRIALS[trials] and not allow_incomplete:
        found = f"{len(clips)} in the tables of {len(there)} recordings"
        raise DataError(folder / trials, f"{TRIALS[trials]} clips", found, fix)
    return clips


def _lines(path: Path) -> list[str]:
    """Lines of a text file that are not empty."""
    try:
        text = path.read_text(encoding="ascii")
    except OSError as error:
        raise DataError(path, "a readable file", str(error.strerror), f"{UNPACK}.") from None
    except UnicodeDecodeError:
        raise DataError(path, "a text file", "something else", f"{UNPACK}.") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _table(recording: Path) -> list[Clip]:
    """Clips of a recording; several may be of one class, and they may overlap."""
    path = recording.with_name(f"{recording.stem}_labels.csv")
    clips = []
    for row, line in enumerate(_lines(path)[1:]):
        try:
            label, start, end = map(int, line.split(","))
        except ValueError:
            label, start, end = 0, 0, 0
        if not 1 <= label <= len(CLASSES) or not 0 <= start < end:
            expected = f"rows of class 1 to {len(CLASSES)}, start and end in microseconds"
            raise DataError(path, expected, repr(line[:60]), f"{UNPACK}.")
        clips.append(Clip(f"{recording.stem}_{row}", recording, label - 1, start, end))
    return clips


def _cut(events: Events, clip: Clip) -> Events:
    """Events of a clip."""
    inside = (events.t >= clip.start) & (events.t < clip.end)
    return Events(events.t[inside], events.x[inside], events.y[inside], events.p[inside])
