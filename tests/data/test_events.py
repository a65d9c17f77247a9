"""Frames count every event once, as SpikingJelly counts them, and nonsense is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from event_files import stream
from hypothesis import given
from hypothesis import strategies as st
from spikingjelly.datasets.utils import integrate_events_by_fixed_frames_number

from saformer.data.events import Events, normalise, to_frames, validate
from saformer.data.settings import Norm, SplitBy
from saformer.errors import DataError

RULES = st.sampled_from(SplitBy)


def one_by_one(events: Events, timesteps: int, split_by: SplitBy, sensor: int, size: int):
    """Counts [T, 2, size, size] by the definition, an event at a time."""
    frames = np.zeros((timesteps, 2, size, size), dtype=int)
    count = len(events)
    for i in range(count):
        if split_by is SplitBy.number:
            length, place = count // timesteps, i
        else:
            length, place = (
                int(events.t[-1] - events.t[0]) // timesteps,
                int(events.t[i] - events.t[0]),
            )
        frame = min(place // max(length, 1), timesteps - 1)
        x, y = (int(axis[i]) * size // sensor for axis in (events.x, events.y))
        frames[frame, int(events.p[i]), y, x] += 1
    return frames


@given(
    seed=st.integers(0, 2**32),
    count=st.integers(0, 150),
    timesteps=st.integers(1, 20),
    end=st.integers(1, 1000),
    size=st.integers(1, 16),
    split_by=RULES,
)
def test_frames_are_what_a_loop_counts(seed, count, timesteps, end, size, split_by):
    """For any number of events, frames and pixels each event is in the cell of its definition."""
    events = stream(seed, count, end=end, sensor=16)
    frames, saturated = to_frames(events, timesteps, split_by, 16, size)
    assert frames.dtype == np.uint8 and saturated == 0
    assert frames.sum() == count
    assert (frames == one_by_one(events, timesteps, split_by, 16, size)).all()


@given(
    seed=st.integers(0, 2**32),
    timesteps=st.integers(1, 16),
    rest=st.integers(0, 30),
    split_by=RULES,
)
def test_frames_are_spikingjellys(seed, timesteps, rest, split_by):
    """From one event a frame by number, and many by time, frames are what SpikingJelly makes."""
    few = 1 if split_by is SplitBy.number else 60  # by time it takes no frame without an event
    events = stream(seed, few * timesteps + rest)
    theirs = integrate_events_by_fixed_frames_number(
        {name: getattr(events, name) for name in "txyp"}, split_by.value, timesteps, 128, 128
    )
    assert (to_frames(events, timesteps, split_by, 128, 128)[0] == theirs).all()


def test_by_number_the_last_frame_takes_the_rest():
    """Of 11 events in four frames, three hold two and the last one five."""
    frames, _ = to_frames(stream(0, 11), 4, SplitBy.number, 128, 128)
    assert frames.sum((1, 2, 3)).tolist() == [2, 2, 2, 5]


def test_by_time_a_gap_is_an_empty_frame():
    """Frames span equal times, the last one to the end, and one without events is zero."""
    zero = np.zeros(5, dtype=int)
    events = Events(np.array([100, 109, 130, 139, 142]), zero, zero, zero)
    frames, _ = to_frames(events, 4, SplitBy.time, 128, 128)
    assert frames.sum((1, 2, 3)).tolist() == [2, 0, 0, 3]


@pytest.mark.parametrize("size", [64, 48, 32, 1])
def test_smaller_frames_are_sums_of_pixels(size):
    """A frame of a smaller side holds sums over the large frame's pixels that fall together."""
    events = stream(0, 2000)
    large, _ = to_frames(events, 3, SplitBy.number, 128, 128)
    small, saturated = to_frames(events, 3, SplitBy.number, 128, size)
    together = np.zeros((size, 128), dtype=int)
    together[np.arange(128) * size // 128, np.arange(128)] = 1
    sums = together @ large.astype(int) @ together.T
    assert (small == np.minimum(sums, 255)).all()
    assert saturated == (sums > 255).sum()


def test_a_full_cell_is_cut_off_and_counted():
    """255 events fit a cell; of 256 and 300 one and 45 are lost in two saturated cells."""
    y = np.repeat([0, 1, 2], [255, 256, 300])
    zero = np.zeros_like(y)
    frames, saturated = to_frames(Events(zero, zero, y, zero), 1, SplitBy.number, 128, 128)
    assert frames[0, 0, :3, 0].tolist() == [255, 255, 255] and saturated == 2


@pytest.mark.parametrize("split_by", SplitBy)
def test_the_type_of_the_numbers_does_not_matter(split_by):
    """Places in 8 bits, as the AEDAT 2.0 reader gives them, make the frames of those in 64."""
    wide = stream(0, 500)
    narrow = Events(wide.t, *(getattr(wide, name).astype(np.uint8) for name in "xyp"))
    for size in (128, 48):
        frames = [to_frames(events, 5, split_by, 128, size)[0] for events in (wide, narrow)]
        assert (frames[0] == frames[1]).all()


FILE = Path("cat_3.aedat")


def changed(name: str, i: int, value: int) -> Events:
    """A good recording of 40 events with one number changed."""
    events = stream(0, 40)
    getattr(events, name)[i] = value
    return events


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (stream(0, 15), "expected at least 16 events, found 15"),
        (stream(0, 0), "expected at least 16 events, found 0"),
        (changed("x", 17, 200), "expected x from 0 to 127, found x=200 in event 17"),
        (changed("x", 17, -1), "expected x from 0 to 127, found x=-1 in event 17"),
        (changed("y", 39, 128), "expected y from 0 to 127, found y=128 in event 39"),
        (changed("p", 2, -1), "expected p from 0 to 1, found p=-1 in event 2"),
        (changed("p", 2, 2), "expected p from 0 to 1, found p=2 in event 2"),
        (stream(0, 40, 7, 8), "expected a duration above 0 and below 60 s, found 0.0 s"),
        (changed("t", 39, 61_000_000), "expected a duration above 0 and below 60 s, found 6"),
    ],
)
def test_nonsense_is_refused(events, message):
    """The answer names the file, the event, and the numbers, in one line."""
    with pytest.raises(DataError) as error:
        validate(events, 128, 16, FILE)
    assert f"{FILE}: {message}" in str(error.value)
    assert "\n" not in str(error.value)


def test_good_events_pass_as_they_are():
    """Events in order, equal times among them, are handed back and not copied."""
    events = stream(0, 40)
    events.t[3] = events.t[4]
    checked, in_order = validate(events, 128, 16, FILE)
    assert checked is events and in_order


def test_events_are_put_in_order():
    """Events that jump back in time are sorted, those of one time keep their order; it is told."""
    t = np.random.default_rng(0).integers(0, 4, 128)
    x = np.arange(128)
    checked, in_order = validate(Events(t, x, x, x % 2), 128, 2, FILE)
    expected = sorted(range(128), key=lambda i: t[i])
    assert not in_order
    assert checked.t.tolist() == sorted(t)
    assert checked.x.tolist() == checked.y.tolist() == expected
    assert checked.p.tolist() == [i % 2 for i in expected]


def test_counts_are_scaled_as_asked():
    """Counts stay, go over their clip's largest, are cut at 1, or become log(1 + n)."""
    counts = torch.zeros(2, 3, 2, 4, 4)
    counts[0, 0, 0, 0, 0], counts[0, 2, 1, 3, 3], counts[1, 1, 1, 1, 1] = 4, 1, 10
    assert torch.equal(normalise(counts, Norm.none), counts)
    largest = normalise(counts, Norm.max)
    assert largest.amax((1, 2, 3, 4)).tolist() == [1, 1] and largest[0, 2, 1, 3, 3] == 0.25
    assert torch.equal(normalise(counts, Norm.clip1), (counts > 0).float())
    assert torch.equal(normalise(counts, Norm.log1p).expm1().round(), counts)


def test_an_empty_clip_stays_empty():
    """No count at all is zero under every norm, not NaN."""
    counts = torch.zeros(1, 2, 2, 3, 3)
    assert all(torch.equal(normalise(counts, norm), counts) for norm in Norm)
