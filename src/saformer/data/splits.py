"""Choose the items for testing and validation, and compute the digest that identifies a choice.

CIFAR10-DVS was published without a split, and "9:1" in papers means at least three different ones:

- `peer_last10`: the last tenth of every class when its file names are sorted as strings; of a
  thousand files these are the numbers 91 to 99 and 909 to 999. SpikingJelly's
  `split_to_train_test_set` does this, and so Spikformer, Spikingformer, QKFormer and Spike-driven
  Transformer use this split.
- `tebn_first100`: the first hundred of every class by number, as in TEBN and SpikingJelly's
  `CIFAR10DVSTEBNSplit`; this split is known to give higher accuracy.
- `stratified_seeded`: a random tenth of every class, drawn with `dataset.split_seed`.
"""

import hashlib
import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from saformer.data.settings import DatasetConfig, Split
from saformer.data.source import Items
from saformer.errors import SettingError

TEBN_TEST = 100  # test recordings per class


def choose_test(
    config: DatasetConfig,
    names: Sequence[str],
    labels: NDArray[np.int64],
    official: NDArray[np.bool_] | None,
) -> NDArray[np.bool_]:
    """Return the mask of the recordings that `dataset.split` puts into the test set.

    Args:
        config: Settings of the dataset; `split` and `split_seed` are used.
        names: Names of the recordings [N]; each name ends in the recording's number.
        labels: Class numbers [N].
        official: The published test set [N], None if there is none.

    Raises:
        SettingError: The dataset has no such split, or a class would have no recording on one side.
    """
    if (official is not None) != (config.split is Split.official):
        others = [split.value for split in Split if split is not Split.official]
        allowed = f"one of {', '.join(others)}" if official is None else "official"
        raise SettingError(
            f"dataset.split must be {allowed} for {config.name}, not {config.split.value}"
        )
    if official is not None:
        return official
    test = np.zeros(len(labels), dtype=bool)
    if config.split is Split.stratified_seeded:
        count = round(0.1 * len(labels))
        test[stratified(labels, count, config.split_seed, "dataset.split=stratified_seeded")[0]] = 1
        return test
    for label in np.unique(labels):
        items = np.flatnonzero(labels == label).tolist()
        if config.split is Split.peer_last10:
            by_name = sorted(items, key=lambda i: names[i])
            chosen = by_name[-(-9 * len(items) // 10) :]  # ceil(0.9 n) are for training
        else:
            chosen = [i for i in items if _number(names[i]) < TEBN_TEST]
        if not 0 < len(chosen) < len(items):
            raise SettingError(
                f"dataset.split={config.split.value} puts {len(chosen)} of {len(items)} recordings "
                f"of class {label} into the test set: choose dataset.split=stratified_seeded"
            )
        test[chosen] = True
    return test


def _number(name: str) -> int:
    """The number that a file's name ends in."""
    return int(re.findall(r"\d+", name)[-1])


def stratified(
    labels: NDArray[np.int64], count: int, seed: int, setting: str
) -> tuple[Items, Items]:
    """Pick `count` items so that every class keeps its share, and return picked and other items.

    Args:
        labels: Class numbers [N].
        count: Number of items to pick; it must allow at least one of each class.
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
    # Round up the classes with the largest remainders, so that the picks add up to `count`.
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


def digest(items: Sequence[str]) -> str:
    """Hash a set of item names; the same set has the same digest in any order, on any machine."""
    return hashlib.sha256("\n".join(sorted(items)).encode()).hexdigest()[:12]


def digest_of(items: Items, labels: NDArray[np.int64], identify: Callable[[int], str]) -> str:
    """Hash a set of items by class and name.

    Args:
        items: Item numbers.
        labels: Class numbers of all items [N].
        identify: Gives the name of an item, see `Source.identify`.
    """
    classes = labels[items].tolist()
    return digest(
        [f"{label} {identify(item)}" for label, item in zip(classes, items.tolist(), strict=True)]
    )
