"""Which images are held out: stratified, seeded, and stamped with a digest."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from saformer.errors import SettingError

Indices = NDArray[np.int64]


def stratified(labels: Indices, count: int, seed: int, setting: str) -> tuple[Indices, Indices]:
    """Pick `count` items so that every class keeps its share, and return the rest beside them.

    Args:
        labels: Class numbers [N].
        count: Items to pick, at least one of each class.
        seed: Seed of the choice.
        setting: Name of the setting behind `count`, for the message.

    Returns:
        Picked and remaining item numbers, each in increasing order.

    Raises:
        SettingError: Some class would have no item on one of the two sides.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    exact = sizes * count / len(labels)
    picks = np.floor(exact).astype(np.int64)
    # Largest remainders first, so that the picks add up to `count`.
    for i in np.argsort(picks - exact, kind="stable")[: count - picks.sum()]:
        picks[i] += 1
    if picks.min() < 1 or (sizes - picks).min() < 1:
        raise SettingError(
            f"{setting} picks {count} of {len(labels)} images, which leaves one of the "
            f"{len(classes)} classes without any on one side: choose a value in between"
        )
    rng = np.random.default_rng(seed)
    picked = np.concatenate(
        [
            rng.permutation(np.flatnonzero(labels == label))[:pick]
            for label, pick in zip(classes, picks, strict=True)
        ]
    )
    rest = np.setdiff1d(np.arange(len(labels)), picked)
    return np.sort(picked), rest


def digest(indices: Indices) -> str:
    """Short name of a set of item numbers: the same set has the same digest everywhere."""
    return hashlib.sha256(np.sort(indices).astype("<i8").tobytes()).hexdigest()[:12]
