"""Event streams: their checks, and frames that count them.

T timesteps, H W height and width.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saformer.data.settings import Norm, SplitBy
from saformer.errors import DataError

MAX_SECONDS = 60

Integers = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Events:
    """One recording; each of the four arrays has one entry an event."""

    t: NDArray[np.int64]
    """Time in microseconds."""
    x: Integers
    """Column."""
    y: Integers
    """Row, from the top."""
    p: Integers
    """Polarity: 0 darker, 1 brighter."""

    def __len__(self) -> int:
        return len(self.t)


def validate(events: Events, sensor: int, timesteps: int, path: Path) -> tuple[Events, bool]:
    """Refuse what no camera of this kind writes, and put the events in order of time.

    Args:
        events: One recording.
        sensor: Side of the sensor in pixels.
        timesteps: Frames T that it will be cut into.
        path: Where it comes from, for the message.

    Returns:
        The events in order of time, and whether they were so before.

    Raises:
        DataError: A place outside the sensor, another polarity than 0 and 1, fewer events than
            frames, or a duration that cannot be.
    """
    fix = "Get the file again, or check that it is a recording of this dataset."
    if len(events) < timesteps:
        raise DataError(path, f"at least {timesteps} events", f"{len(events)}", fix)
    for name, values, end in (("x", events.x, sensor), ("y", events.y, sensor), ("p", events.p, 2)):
        if values.min() < 0 or values.max() >= end:
            i = int(np.flatnonzero((values < 0) | (values >= end))[0])
            found = f"{name}={values[i]} in event {i} (wrong address mask?)"
            raise DataError(path, f"{name} from 0 to {end - 1}", found, fix)
    in_order = bool((events.t[1:] >= events.t[:-1]).all())
    if not in_order:
        order = np.argsort(events.t, kind="stable")
        events = Events(events.t[order], events.x[order], events.y[order], events.p[order])
    seconds = (events.t[-1] - events.t[0]) / 1e6
    if not 0 < seconds < MAX_SECONDS:
        raise DataError(path, f"a duration above 0 and below {MAX_SECONDS} s", f"{seconds} s", fix)
    return events, in_order


def to_frames(
    events: Events, timesteps: int, split_by: SplitBy, sensor: int, size: int
) -> tuple[NDArray[np.uint8], int]:
    """Count events in T frames; every event lands in exactly one cell.

    By number, a frame holds N // T events and the last one also the rest; by time, a frame spans
    (t_last - t_first) // T and the last one goes to the end. Both are what SpikingJelly's
    `integrate_events_by_fixed_frames_number` does, but for N < T, where it puts all events into the
    last frame and this one event into each of the first.

    Args:
        events: In order of time, all within the sensor.
        timesteps: Frames T.
        split_by: Rule of cutting.
        sensor: Side of the sensor in pixels.
        size: Side of a frame; pixels x * size // sensor fall together.

    Returns:
        Counts [T, 2, size, size], cut off at 255, and how many cells were.
    """
    count, inner = len(events), np.arange(1, timesteps)
    if split_by is SplitBy.number:
        cuts = inner * max(count // timesteps, 1)
    else:
        start, end = (events.t[0], events.t[-1]) if count else (0, 0)
        cuts = np.searchsorted(events.t, start + inner * max((end - start) // timesteps, 1))
    x, y = events.x, events.y
    if size != sensor:
        place = np.arange(sensor) * size // sensor
        x, y = place[x], place[y]
    cell = events.p.astype(np.int32)  # in place from here on: memory is what takes the time
    cell *= size
    cell += y
    cell *= size
    cell += x
    frames = np.empty((timesteps, 2 * size * size), dtype=np.uint8)
    saturated = 0
    for frame, part in zip(frames, np.split(cell, cuts), strict=True):
        counts = np.bincount(part, minlength=len(frame))
        if counts.max() > 255:  # rare, and dear
            saturated += int(np.count_nonzero(counts > 255))
            np.minimum(counts, 255, out=counts)
        frame[:] = counts
    return frames.reshape(timesteps, 2, size, size), saturated


def normalise(counts: Tensor, norm: Norm) -> Tensor:
    """Scale the counts of clips, float [B, T, 2, H, W]."""
    if norm is Norm.max:
        return counts / counts.amax((1, 2, 3, 4), keepdim=True).clamp(min=1)
    if norm is Norm.clip1:
        return counts.clamp(max=1)
    if norm is Norm.log1p:
        return torch.log1p(counts)
    return counts
