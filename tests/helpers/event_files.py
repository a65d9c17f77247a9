"""Writes recordings of events in the official formats and layouts, small and filled at random."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from saformer.data.events import Events
from saformer.data.readers import cifar10_dvs, dvs128_gesture
from saformer.data.readers.aedat2 import write_aedat2
from saformer.data.readers.aedat31 import END, PACKET, VERSION
from saformer.data.settings import DatasetConfig, EventConfig

HEADER = VERSION + b"\r\n#Format: RAW\r\n#Source 1: DVS128\r\n" + END


def stream(
    seed: int, count: int, start: int = 0, end: int = 1_000_000, sensor: int = 128
) -> Events:
    """Events at random places, in order of time, start <= t < end."""
    rng = np.random.default_rng(seed)
    return Events(
        t=np.sort(rng.integers(start, end, count)),
        x=rng.integers(0, sensor, count),
        y=rng.integers(0, sensor, count),
        p=rng.integers(0, 2, count),
    )


def packet(kind: int, events: bytes, overflow: int = 0) -> bytes:
    """A packet of 8-byte events."""
    count = len(events) // 8
    return PACKET.pack(kind, 1, 8, 4, overflow, count, count, count) + events


def write_aedat31(
    path: Path, events: Events, size: int = 100, invalid: NDArray[np.bool_] | None = None
) -> None:
    """Write events in packets of at most `size`, after a packet of another type.

    Args:
        path: File to write.
        events: In order of time.
        size: Events of a packet.
        invalid: Which of them are marked as not valid; none if None.
    """
    valid = 1 if invalid is None else ~invalid
    place = valid | events.p << 1 | events.y << 2 | events.x << 17
    words = np.stack([place, events.t & 0x7FFF_FFFF], axis=1).astype("<u4")
    parts = [HEADER, packet(0, bytes(16))]
    for overflow in np.unique(events.t >> 31):
        inside = words[events.t >> 31 == overflow]
        parts += [
            packet(1, inside[i : i + size].tobytes(), int(overflow))
            for i in range(0, len(inside), size)
        ]
    path.write_bytes(b"".join(parts))


def config(name: str, root: Path, **settings: object) -> DatasetConfig:
    """Settings of an event dataset below `root`, its cache beside it, frames of 32 pixels."""
    values: dict[str, object] = {
        "root": str(root),
        "num_classes": 11,
        "in_channels": 2,
        "image_size": 32,
        "mean": [0.0, 0.0],
        "std": [1.0, 1.0],
        "cache_dir": str(root.parent / "cache"),
        "events": EventConfig(),
        **settings,
    }
    return DatasetConfig(name=name, **values)  # type: ignore[arg-type]


def write_cifar10_dvs(root: Path, per_class: int, count: int = 200) -> None:
    """The ten class folders; recording `i` of class `label` holds `stream(100 * label + i)`."""
    for label, name in enumerate(cifar10_dvs.CLASSES):
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            path = root / name / f"cifar10_{name}_{i}.aedat"
            write_aedat2(path, stream(100 * label + i, count))


CLIP = 10_000  # microseconds
OVERLAP = 2_000


def write_gesture(root: Path, train: int, test: int, count: int = 4000) -> None:
    """The folder DvsGesture, with `train` and `test` people.

    Everyone makes each gesture once and number 8 twice, and each clip but the last ends after the
    next one starts, as in user22_led of the official set.
    """
    folder = root / dvs128_gesture.FOLDER
    folder.mkdir(parents=True)
    classes = [*range(1, 9), *range(8, 12)]
    lists: dict[str, list[str]] = {trials: [] for trials in dvs128_gesture.TRIALS}
    for user in range(1, train + test + 1):
        stem = f"user{user:02d}_led"
        write_aedat31(folder / f"{stem}.aedat", stream(user, count, 0, CLIP * 13))
        rows = [
            f"{label},{CLIP * i + 500},{CLIP * (i + 1) + OVERLAP}"
            for i, label in enumerate(classes)
        ]
        table = "\n".join(["class,startTime_usec,endTime_usec", *rows, ""])
        (folder / f"{stem}_labels.csv").write_text(table)
        lists[list(lists)[user > train]].append(f"{stem}.aedat")
    for trials, names in lists.items():
        (folder / trials).write_text("\n".join([*names, "", ""]))


def clips_of(people: int) -> int:
    """Clips that so many people make."""
    return 12 * people
