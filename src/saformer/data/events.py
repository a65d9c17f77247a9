"""Check event streams and count their events in frames.

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
    """One recording; each of the four arrays has one entry per event."""

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
    """Refuse events that no camera of this kind can write, and sort the others by time.

    Args:
        events: One recording.
        sensor: Side of the sensor in pixels.
        timesteps: Frames T that the recording will be cut into.
        path: File of the recording, for the message.

    Returns:
        The events in order of time, and whether they were in order before.

    Raises:
        DataError: An event lies outside the sensor or has a polarity other than 0 and 1, there are
            fewer events than frames, or the duration is impossible.
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

    With `number`, each frame holds N // T events, and the last frame also holds the remaining ones.
    With `time`, each frame spans (t_last - t_first) // T, and the last frame extends to the end.
    SpikingJelly's `integrate_events_by_fixed_frames_number` does the same, except for N < T: it
    puts all events into the last frame; this function puts one event into each of the first frames.

    Args:
        events: Events in order of time, all within the sensor.
        timesteps: Frames T.
        split_by: Whether frames hold equally many events or span equal times.
        sensor: Side of the sensor in pixels.
        size: Side of a frame; sensor column x falls into frame column x * size // sensor.

    Returns:
        Counts [T, 2, size, size], limited to 255, and the number of cells that reached the limit.
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
    cell = events.p.astype(np.int32)  # then in place: allocating memory would take most of the time
    cell *= size
    cell += y
    cell *= size
    cell += x
    frames = np.empty((timesteps, 2 * size * size), dtype=np.uint8)
    saturated = 0
    for frame, part in zip(frames, np.split(cell, cuts), strict=True):
        counts = np.bincount(part, minlength=len(frame))
        if counts.max() > 255:  # rare, so the slow count of such cells is skipped otherwise
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
