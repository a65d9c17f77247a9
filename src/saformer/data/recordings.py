"""Turn a dataset of event recordings into frames, which are cached as uint8 arrays.

T timesteps, N recordings, H W height and width of the frames.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from saformer.data.cache import build_once, cache_dir_of, new_array, open_array, read_meta
from saformer.data.door import check_labels, check_names, fault, kind
from saformer.data.events import Events, to_frames, validate
from saformer.data.progress import progress
from saformer.data.settings import BadRecordings, DatasetConfig, EventConfig, Resize
from saformer.data.source import Source
from saformer.data.splits import choose_test
from saformer.errors import DataError, require

log = logging.getLogger(__name__)

MAX_SKIPPED = 1e-3  # share of the recordings; a build with more damaged ones fails
MAX_SATURATED = 1e-4  # share of the cells; a build with more saturated ones warns


@dataclass(frozen=True)
class Recordings:
    """An index of recordings: everything that is known before any event is read."""

    sensor: int
    """Side of the sensor in pixels."""
    names: list[str]
    """Unique names, in an order that does not depend on the file system."""
    paths: list[Path]
    """The file of each recording, for messages."""
    labels: NDArray[np.int64]
    """Class numbers [N]."""
    test: NDArray[np.bool_] | None
    """Mask of the official test set [N]; None if there is no official test set."""
    fingerprint: str
    """Digest of names and sizes, in the order of `names` (`saformer.data.cache.fingerprint`)."""
    load: Callable[[int], Events]
    """Reads one recording or raises a DataError; it is called in order of the names."""


def event_settings(config: DatasetConfig) -> EventConfig:
    """The settings of how events become frames.

    Raises:
        SettingError: They are null, as for a dataset of images.
    """
    rule = f"be set for {config.name}, which is recorded events: type dataset={config.name}"
    require(config.events is not None, "dataset.events", rule, "null")
    assert config.events is not None
    return config.events


def check_recordings(recordings: Recordings, config: DatasetConfig) -> None:
    """Check that the parts of an index fit together.

    `check_source` cannot do this later, because the frames do not contain all of the index.

    Raises:
        SettingError: The index has more classes than the settings say.
        DataError: Its parts do not fit together.
    """
    count, labels, test = len(recordings.names), recordings.labels, recordings.test
    check_names(recordings.names, count, config)
    if len(recordings.paths) != count:
        raise fault(config, f"{count} paths", f"{len(recordings.paths)}", "Give one for each name.")
    if not isinstance(labels, np.ndarray) or labels.dtype != np.int64:
        fix = "Give np.array(numbers, dtype=np.int64)."
        raise fault(config, "labels as int64 [N]", kind(labels), fix)
    check_labels(labels, count, config)
    is_mask = isinstance(test, np.ndarray) and test.dtype == np.bool_ and test.shape == (count,)
    if test is not None and not is_mask:
        fix = "Give a mask of the test recordings, or None."
        raise fault(config, f"test as bool [{count}]", kind(test), fix)


def read_recordings(config: DatasetConfig, recordings: Recordings, timesteps: int) -> Source:
    """Return the frames of all recordings and the split; the first call builds the cache.

    Args:
        config: Settings of the dataset.
        recordings: Index of the recordings.
        timesteps: Frames T of a recording.

    Raises:
        DataError: A recording is damaged, the index contradicts itself, or the cache cannot be
            written.
        SettingError: The split is impossible, or frames would be larger than the sensor.
    """
    check_recordings(recordings, config)
    events, size = event_settings(config), recordings.sensor
    rule = f"be at most {size}, the side of the sensor"
    require(config.image_size <= size, "dataset.image_size", rule, config.image_size)
    if events.resize is Resize.bin:
        size = config.image_size
    # Split before the slow build, so that a wrong setting is reported early. Split all recordings,
    # so that a damaged one that is left out does not move others to the other side.
    test = choose_test(config, recordings.names, recordings.labels, recordings.test)
    shape = (len(recordings.names), timesteps, 2, size, size)
    key = {
        "dataset": config.name,
        "source": recordings.fingerprint,
        "timesteps": timesteps,
        "split_by": events.split_by.value,
        "size": size,
        "bad_recordings": events.bad_recordings.value,
    }

    def build(folder: Path) -> dict[str, Any]:
        return _write_frames(folder, config, recordings, shape)

    folder = build_once(cache_dir_of(config), config.name, key, int(np.prod(shape)), build)
    meta = read_meta(folder)
    kept = np.load(folder / "kept.npy", allow_pickle=False)
    test = test[kept]
    facts = {
        name: meta[name] for name in ("skipped", "saturated_cells", "num_events", "unsorted")
    } | {"fingerprint": recordings.fingerprint, "cache": folder.name}
    return Source(
        x=torch.from_numpy(open_array(folder / "frames.npy")[: len(kept)]),
        y=torch.from_numpy(recordings.labels[kept]),
        train=np.flatnonzero(~test),
        test=np.flatnonzero(test),
        names=[recordings.names[i] for i in kept],
        facts=facts,
    )


def _write_frames(
    folder: Path, config: DatasetConfig, recordings: Recordings, shape: tuple[int, ...]
) -> dict[str, Any]:
    """Write frames.npy [N, T, 2, H, W] and kept.npy, the numbers of the recordings in it.

    If recordings are skipped, as many entries at the end of frames.npy stay empty.
    """
    events = event_settings(config)
    count, timesteps, _, size, _ = shape
    frames = new_array(folder / "frames.npy", shape)
    kept: list[int] = []
    skipped: list[str] = []
    saturated = total = unsorted = 0
    for i in progress(range(count), f"{config.name}: frames"):
        try:
            recording = recordings.load(i)
            stream, in_order = validate(
                recording, recordings.sensor, timesteps, recordings.paths[i]
            )
        except DataError as error:
            skipped.append(str(error))
            if events.bad_recordings is BadRecordings.error:
                raise
            if len(skipped) > MAX_SKIPPED * count:
                raise DataError(
                    error.path,
                    f"at most {MAX_SKIPPED:.1%} damaged recordings",
                    f"{len(skipped)} so far, the last: {error}",
                    "Check the files: saformer-data check " + config.name,
                ) from error
            continue
        frames[len(kept)], clipped = to_frames(
            stream, timesteps, events.split_by, recordings.sensor, size
        )
        kept.append(i)
        saturated += clipped
        total += len(stream)
        unsorted += not in_order
    frames.flush()
    np.save(folder / "kept.npy", np.array(kept, dtype=np.int64))
    cells = max(1, len(kept) * int(np.prod(shape[1:])))
    if saturated > MAX_SATURATED * cells:
        log.warning(
            "%s: %d of %d cells counted more than 255 events and are cut off there",
            config.name, saturated, cells,
        )  # fmt: skip
    if skipped:
        log.warning("%s: %d damaged recordings left out: %s", config.name, len(skipped), skipped)
    if unsorted:
        log.warning("%s: %d recordings were not in order of time; sorted", config.name, unsorted)
    return {
        "skipped": skipped,
        "saturated_cells": saturated,
        "num_events": total,
        "unsorted": unsorted,
    }
