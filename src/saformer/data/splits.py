"""Which items are tested on and which held out, and the digest that a choice is stamped with.

CIFAR10-DVS was published without a split, and "9:1" in papers is at least three different ones:

- `peer_last10`: the last tenth of every class when its file names are sorted as strings, so of a
  thousand the numbers 91 to 99 and 909 to 999. SpikingJelly's `split_to_train_test_set`, and with
  it Spikformer, Spikingformer, QKFormer and Spike-driven Transformer.
- `tebn_first100`: the first hundred of every class by number, as TEBN and SpikingJelly's
  `CIFAR10DVSTEBNSplit`; known to give higher accuracy.
- `stratified_seeded`: a tenth of every class at random, by `dataset.split_seed`.
"""

import hashlib
import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from saformer.data.settings import DatasetConfig, Split
from saformer.data.source import Items
from saformer.errors import SettingError

TEBN_TEST = 100  # recordings of a class


def choose_test(
    config: DatasetConfig,
    names: Sequence[str],
    labels: NDArray[np.int64],
    official: NDArray[np.bool_] | None,
) -> NDArray[np.bool_]:
    """Which recordings `dataset.split` puts into the test set.

    Args:
        config: Its `split` and `split_seed`.
        names: Names of the recordings [N]; what they end in is their number.
        labels: Class numbers [N].
        official: The published test set [N], None if there is none.

    Raises:
        SettingError: There is no such split of this dataset, or a class would be left empty.
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
            chosen = by_name[-(-9 * len(items) // 10) :]  # ceil(0.9 n) are trained on
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


def digest(items: Sequence[str]) -> str:
    """Short name of a set of item names: the same set has the same digest everywhere."""
    return hashlib.sha256("\n".join(sorted(items)).encode()).hexdigest()[:12]


def digest_of(items: Items, labels: NDArray[np.int64], identify: Callable[[int], str]) -> str:
    """The digest of items by class and name.

    Args:
        items: Their numbers.
        labels: Class numbers of all [N].
        identify: What tells an item from the others, as `Source.identify`.
    """
    classes = labels[items].tolist()
    return digest(
        [f"{label} {identify(item)}" for label, item in zip(classes, items.tolist(), strict=True)]
    )
