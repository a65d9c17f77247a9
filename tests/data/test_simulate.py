"""The simulated camera does what a real one's pixels do, and the same every time."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from saformer.data.readers import digits
from saformer.data.simulate import (
    LOOP,
    NOISE_HZ,
    RADIUS,
    STEP_US,
    THRESHOLD,
    VIEW,
    crossings,
    record,
    thresholds,
)

DURATION = STEP_US * (len(LOOP) - 1)
STILL = np.zeros_like(LOOP)
IMAGES = hnp.arrays(np.uint8, (8, 8))


@pytest.fixture
def square() -> np.ndarray:
    """White on black, in the middle: rows and columns 12 to 20 of the view."""
    image = np.zeros((8, 8), np.uint8)
    image[3:5, 3:5] = 255
    return image


@given(IMAGES, st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_events_are_those_of_a_camera(image, seed):
    """Whatever the image, events are in order of time, within the loop, and on the sensor."""
    events = record(image, seed)
    assert (np.diff(events.t) >= 0).all()
    assert events.t.min() >= 0 and events.t.max() <= DURATION
    for values, end in ((events.x, VIEW), (events.y, VIEW), (events.p, 2)):
        assert values.min() >= 0 and values.max() < end


def test_an_image_and_a_seed_give_one_recording(square):
    """The same call gives the same events; another seed changes the noise and nothing else."""
    first, same, other = record(square, 1), record(square, 1), record(square, 2)
    for name in ("t", "x", "y", "p"):
        assert np.array_equal(getattr(first, name), getattr(same, name))
    assert not np.array_equal(first.t, other.t)
    quiet = [record(square, seed, noise_hz=0) for seed in (1, 2)]
    assert np.array_equal(quiet[0].t, quiet[1].t)
    assert 0 < len(quiet[0]) < len(first)


def test_where_nothing_moves_there_is_only_noise(square):
    """A still image gives noise at its rate and of either polarity, and without it nothing."""
    assert len(record(square, 0, STILL, noise_hz=0)) == 0
    recordings = [record(square, seed, STILL) for seed in range(50)]
    expected = 50 * NOISE_HZ * VIEW**2 * DURATION / 1e6
    count = sum(map(len, recordings))
    assert abs(count - expected) < 5 * expected**0.5
    assert abs(sum(events.p.sum() for events in recordings) - count / 2) < 5 * (count / 4) ** 0.5
    for axis in "xy":  # from the whole sensor alike
        halves = sum((getattr(events, axis) < VIEW / 2).sum() for events in recordings)
        assert abs(halves - count / 2) < 5 * (count / 4) ** 0.5


def test_the_loop_is_a_diamond_at_one_speed():
    """The image goes from the left over below, right and above back, as far in every step."""
    assert np.allclose(np.abs(LOOP).sum(1), RADIUS)
    quarter = (len(LOOP) - 1) // 4
    assert np.allclose(LOOP[::quarter] / RADIUS, [(-1, 0), (0, 1), (1, 0), (0, -1), (-1, 0)])
    steps = np.linalg.norm(np.diff(LOOP, axis=0), axis=1)
    assert np.allclose(steps, steps[0])


@given(IMAGES)
@settings(max_examples=20, deadline=None)
def test_a_loop_ends_as_it_began(image):
    """On every pixel, the ON and OFF events of a loop add up to less than one threshold."""
    assert np.array_equal(LOOP[0], LOOP[-1])
    events = record(image, 0, noise_hz=0)
    on, off = thresholds(THRESHOLD)
    pixel = events.y * VIEW + events.x
    change = np.bincount(pixel, np.where(events.p, on[pixel], -off[pixel]), VIEW**2)
    # What a pixel remembers is less than a threshold from the light, and that is as before.
    assert (change < off + 1e-9).all() and (change > -on - 1e-9).all()


@pytest.mark.parametrize("axis", [0, 1], ids=["right", "down"])
def test_a_bright_edge_is_on_ahead_and_off_behind(square, axis):
    """A white square that moves right or down: ON events on that side of it, OFF on the other."""
    path = np.zeros((11, 2))
    path[:, axis] = np.linspace(0, 2, 11)
    events = record(square, 0, path, noise_hz=0)
    ahead, behind = (
        (events.x, events.y)[axis][events.p == polarity].astype(float) for polarity in (1, 0)
    )
    assert ahead.min() > (VIEW - 1) / 2 > behind.max()
    across = (events.y, events.x)[axis]
    assert (
        abs(across.mean() - (VIEW - 1) / 2) < 0.25
    )  # and it stays in the middle of the other axis


def test_the_picture_stands_upright():
    """What is in the upper right of the image is in the upper right of the view."""
    image = np.zeros((8, 8), np.uint8)
    image[1, 6] = 255
    events = record(image, 0, noise_hz=0)
    assert len(events) > 30
    assert events.y.max() < VIEW / 2 < events.x.min()


def test_digits_give_as_many_on_as_off_events():
    """The closed loop balances the polarities of real images, within a few percent."""
    images, _ = digits.load()
    recordings = [record(image, number) for number, image in enumerate(images[:50])]
    assert abs(np.mean([events.p.mean() for events in recordings]) - 0.5) < 0.02


def test_events_are_as_many_as_thresholds_fit_in(square):
    """Twice the threshold gives about half the events, and the same places."""
    few, many = (record(square, 0, threshold=c, noise_hz=0) for c in (0.4, 0.2))
    assert 0.3 < len(few) / len(many) < 0.5  # below one half, for it rounds down
    assert set(zip(few.x, few.y, strict=True)) <= set(zip(many.x, many.y, strict=True))


@given(st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_crossings_are_those_of_a_pixel_at_a_time(seed):
    """The same events as a loop over pixels, steps and single crossings, to the microsecond."""
    rng = np.random.default_rng(seed)
    log_light, threshold = rng.normal(size=(6, 3)), rng.uniform(0.1, 0.5, (2, 3))
    t, pixel, p = crossings(log_light, *threshold)
    found = sorted(zip(pixel.tolist(), t.tolist(), p.tolist(), strict=True))
    expected = sorted(one_by_one(log_light, *threshold))
    assert len(found) == len(expected)
    for (pixel_a, t_a, p_a), (pixel_b, t_b, p_b) in zip(found, expected, strict=True):
        assert (pixel_a, p_a) == (pixel_b, p_b) and abs(t_a - t_b) <= 1


def one_by_one(log_light, on, off):
    """Events of each pixel as its circuit makes them: (pixel, time, polarity)."""
    for pixel, light in enumerate(log_light.T):
        memory = light[0]
        for step, (start, end) in enumerate(itertools.pairwise(light)):
            while end - memory >= on[pixel]:
                memory += on[pixel]
                yield pixel, int(STEP_US * (step + (memory - start) / (end - start))), 1
            while memory - end >= off[pixel]:
                memory -= off[pixel]
                yield pixel, int(STEP_US * (step + (memory - start) / (end - start))), 0
