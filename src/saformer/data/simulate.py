"""Simulate an event camera that looks at a moving image, as in the recording of CIFAR10-DVS.

Li et al. (Frontiers in Neuroscience 11, 2017, 309) enlarged images bicubically, moved them over a
monitor in a smooth closed loop, and recorded them with one DVS128. A pixel of such a camera
remembers the logarithm of the light at its last event. It sends the next event when this logarithm
has changed by the pixel's threshold: ON if the light got brighter, OFF if it got darker.

H W height and width of the image, S side of the view in pixels, K steps of the motion.
"""

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from saformer.data.events import Events

Array = NDArray[np.float64]

VIEW = 32  # side of the camera's view in pixels, S
RADIUS = 2  # pixels; the path is a diamond, so each quarter of it moves edges of every direction
ENLARGED = VIEW - 2 * RADIUS  # side of the image in pixels, so that the motion keeps it in view
STEP_US = 5000  # duration of a step of the motion; the light changes linearly within a step
STEPS = 40  # one loop takes 200 ms and moves at most a fifth of a pixel per step and axis
BLACK = 0.2  # light of a black pixel relative to a white one: monitors are grey in a lit room
THRESHOLD = 0.25  # mean change of the log light that causes an event; a typical DVS setting
MISMATCH = 0.03  # standard deviation of the thresholds over the pixels of a real camera
NOISE_HZ = 1.0  # events per second that a pixel sends without any change of light
CAMERA = 128  # seed of the thresholds: one camera records everything, as in the original


def diamond(radius: float, steps: int) -> Array:
    """Shift of the image at the ends of each step of a closed loop [K + 1, 2], as (x, y)."""
    corners = radius * np.array([(-1, 0), (0, 1), (1, 0), (0, -1), (-1, 0)])
    at = np.linspace(0, 4, steps + 1)
    return np.stack([np.interp(at, np.arange(5), axis) for axis in corners.T], axis=1)


LOOP = diamond(RADIUS, STEPS)


def record(
    image: NDArray[np.uint8],
    seed: int,
    path: Array = LOOP,
    threshold: float = THRESHOLD,
    noise_hz: float = NOISE_HZ,
) -> Events:
    """Return the events that the camera sends while the image moves along the path.

    Args:
        image: Grey levels [H, W], square.
        seed: Seed of the noise.
        path: Shifts in pixels [K + 1, 2], as (x, y).
        threshold: Mean threshold of the pixels.
        noise_hz: Noise events of a pixel per second.

    Returns:
        Events in order of time, in the upright coordinates of the image.
    """
    t, pixel, p = crossings(_log_light(image, path), *thresholds(threshold))
    rng = np.random.default_rng(seed)
    duration = STEP_US * (len(path) - 1)
    count = rng.poisson(noise_hz * VIEW**2 * duration / 1e6)
    t = np.concatenate([t, rng.integers(duration, size=count)])
    pixel = np.concatenate([pixel, rng.integers(VIEW**2, size=count)])
    p = np.concatenate([p, rng.integers(2, size=count)])
    order = np.argsort(t, kind="stable")
    y, x = np.divmod(pixel[order], VIEW)
    return Events(t[order], x, y, p[order])


@cache
def thresholds(mean: float) -> Array:
    """ON and OFF thresholds of the camera's pixels [2, S * S]."""
    return np.random.default_rng(CAMERA).normal(mean, MISMATCH, (2, VIEW**2))


def _log_light(image: NDArray[np.uint8], path: Array) -> Array:
    """Logarithm of the light on every pixel of the view at every point of the path [K + 1, S * S].

    The surroundings of the image are black.
    """
    grey = torch.from_numpy(image).double()[None, None] / 255
    large = F.interpolate(grey, size=(ENLARGED, ENLARGED), mode="bicubic").clamp(0, 1)[0, 0].numpy()
    # Bilinear sampling between pixels is a product with the weights of rows and of columns.
    rows, columns = _bilinear(path[:, 1]), _bilinear(path[:, 0])
    light: Array = rows @ large @ columns.transpose(0, 2, 1)
    return np.log(BLACK + (1 - BLACK) * light).reshape(len(path), VIEW**2)


def _bilinear(shift: Array) -> Array:
    """Weights [K + 1, S, image side] that place one line of the image in the view, with a shift."""
    place = np.arange(ENLARGED) + (VIEW - ENLARGED) / 2 + shift[:, None, None]
    weights: Array = np.maximum(0, 1 - np.abs(np.arange(VIEW)[:, None] - place))
    return weights


def crossings(log_light: Array, on: Array, off: Array) -> tuple[NDArray[np.int64], ...]:
    """Events that the light causes: time in microseconds, pixel, polarity, in any order.

    Args:
        log_light: Log light at the ends of the steps [K + 1, S * S]; it is linear in between.
        on: Thresholds of the pixels for brighter light [S * S].
        off: Thresholds of the pixels for darker light [S * S].
    """
    memory = log_light[0].copy()  # log light at the last event of each pixel
    before, counts = np.empty((2, len(log_light) - 1, len(memory)))
    for i, now in enumerate(log_light[1:]):
        before[i] = memory
        change = now - memory
        threshold = np.where(change > 0, on, -off)
        counts[i] = np.floor(change / threshold)
        memory += counts[i] * threshold
    step, pixel = np.nonzero(counts)
    count = counts[step, pixel].astype(np.int64)
    which = np.repeat(np.arange(len(count)), count)  # a fast change crosses several thresholds
    nth = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count) + 1
    step, pixel = step[which], pixel[which]
    start, end = log_light[step, pixel], log_light[step + 1, pixel]
    brighter = end > start
    level = before[step, pixel] + nth * np.where(brighter, on[pixel], -off[pixel])
    t = STEP_US * (step + np.clip((level - start) / (end - start), 0, 1))
    return t.astype(np.int64), pixel, brighter.astype(np.int64)
