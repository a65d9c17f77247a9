"""Event streams: their checks, and frames that count them.

T timesteps, H W height and width.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saformer.data.settings import Norm, SplitBy
from saformer.errors import DataError

MAX_SECONDS = 60


@dataclass(frozen=True)
class Events:
    """One recording; the four arrays have one entry an event."""

    t: NDArray[np.int64]
    """Time in microseconds."""
    x: NDArray[np.int64]
    """Column."""
    y: NDArray[np.int64]
    """Row, from the top."""
    p: NDArray[np.int64]
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
    in_order = bool((np.diff(events.t) >= 0).all())
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
    if split_by is SplitBy.number:
        frame = np.arange(len(events)) // max(len(events) // timesteps, 1)
    else:
        start, end = (events.t[0], events.t[-1]) if len(events) else (0, 0)
        frame = (events.t - start) // max((end - start) // timesteps, 1)
    np.minimum(frame, timesteps - 1, out=frame)
    x, y = events.x * size // sensor, events.y * size // sensor
    cell = ((frame * 2 + events.p) * size + y) * size + x
    counts = np.bincount(cell, minlength=timesteps * 2 * size * size)
    saturated = int((counts > 255).sum())
    frames = np.minimum(counts, 255).astype(np.uint8)
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
