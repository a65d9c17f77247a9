"""A split is stratified, complete, and a function of its seed alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saformer.data.settings import DatasetConfig, Split
from saformer.data.splits import choose_test, digest, stratified
from saformer.errors import SettingError


@st.composite
def problems(draw):
    """Labels of a few classes in any order, and a count that leaves both sides some of each."""
    sizes = draw(st.lists(st.integers(2, 60), min_size=1, max_size=12))
    labels = draw(st.permutations(np.repeat(np.arange(len(sizes)) * 3, sizes).tolist()))
    return np.array(labels), draw(st.integers(1, len(labels) - 1)), draw(st.integers(0, 2**32))


@given(problem=problems())
def test_a_split_is_a_stratified_partition(problem):
    """Both sides are disjoint, sorted and together complete; each class keeps its share to one."""
    labels, count, seed = problem
    try:
        picked, rest = stratified(labels, count, seed, "dataset.val_fraction")
    except SettingError:
        share = np.unique(labels, return_counts=True)[1] * count / len(labels)
        size = np.unique(labels, return_counts=True)[1]
        assert share.min() < 1 or (size - share).min() < 1  # a share that cannot be had
        return
    assert (len(picked), len(rest)) == (count, len(labels) - count)
    assert np.array_equal(np.sort(np.concatenate([picked, rest])), np.arange(len(labels)))
    assert (np.diff(picked) > 0).all() and (np.diff(rest) > 0).all()
    for label, size in zip(*np.unique(labels, return_counts=True), strict=True):
        took = (labels[picked] == label).sum()
        assert abs(took - size * count / len(labels)) < 1
        assert 1 <= took < size


@given(seed=st.integers(0, 2**32))
def test_a_split_depends_on_its_seed_alone(seed):
    """The global state of numpy neither matters nor moves, and another seed picks others."""
    labels = np.arange(400) % 10
    np.random.seed(1)
    first = stratified(labels, 100, seed, "x")
    np.random.seed(2)
    before = np.random.get_state()[1].tolist()
    second = stratified(labels, 100, seed, "x")
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert np.random.get_state()[1].tolist() == before
    assert not np.array_equal(first[0], stratified(labels, 100, seed + 1, "x")[0])


def test_a_full_share_is_exact():
    """A tenth of 60,000 images of ten even classes is 600 of each, in spite of rounding."""
    labels = np.arange(60_000) % 10
    picked, _ = stratified(labels, 6000, 0, "x")
    assert np.bincount(labels[picked]).tolist() == [600] * 10


def test_what_is_left_over_goes_to_the_largest_remainder():
    """Exact shares 2.8, 5.2 and 2.0 become 3, 5 and 2."""
    labels = np.repeat([0, 1, 2], [7, 13, 5])
    picked, _ = stratified(labels, 10, 0, "x")
    assert np.bincount(labels[picked]).tolist() == [3, 5, 2]


def test_the_picks_are_pinned():
    """The same seed picks the same images on every machine and in every version."""
    labels = np.arange(1000) % 10
    picked, rest = stratified(labels, 100, 0, "dataset.val_fraction")
    assert digest(list(map(str, picked))) == "a1031aeb2b45"
    assert digest(list(map(str, rest))) == "4ebd493b3a20"


@pytest.mark.parametrize("count", [0, 1, 9, 91, 99, 100, 1000])
def test_a_side_without_some_class_is_refused(count):
    """The answer names the setting and the numbers."""
    labels = np.arange(100) % 10
    with pytest.raises(SettingError) as error:
        stratified(labels, count, 0, "dataset.train_subset")
    message = str(error.value)
    assert message.startswith(f"dataset.train_subset picks {count} of 100 images")
    assert "10 classes" in message and "\n" not in message


def test_a_digest_names_a_set():
    """The digest is that of the names, whatever their order."""
    names = ["cat_1", "cat_12", "dog_3"]
    assert digest(names) == digest(names[::-1]) == "f0c865775d4f"
    assert digest(names) != digest(names[:2])


def recordings(per_class: int, classes: int = 2) -> tuple[list[str], np.ndarray]:
    """Names and labels as CIFAR10-DVS has them, in the order of the numbers."""
    names = [f"cifar10_class{k}_{i}" for k in range(classes) for i in range(per_class)]
    return names, np.repeat(np.arange(classes), per_class)


def config(split: str, split_seed: int = 0) -> DatasetConfig:
    return DatasetConfig(
        name="cifar10_dvs",
        num_classes=10,
        in_channels=2,
        image_size=128,
        mean=[0, 0],
        std=[1, 1],
        split=Split(split),
        split_seed=split_seed,
    )


def numbers(names: list[str], test: np.ndarray) -> list[int]:
    """Sorted file numbers of the test recordings of class 0."""
    chosen = [name for name, held in zip(names, test, strict=True) if held]
    return sorted(int(n.rpartition("_")[2]) for n in chosen if n.startswith("cifar10_class0_"))


def test_peer_last10_is_what_spikingjelly_takes():
    """The last tenth of the names as strings: files 91 to 99 and 909 to 999 of each class."""
    names, labels = recordings(1000)
    order = np.random.default_rng(0).permutation(len(names))
    for listed in (np.arange(len(names)), order):
        shuffled = [names[i] for i in listed]
        test = choose_test(config("peer_last10"), shuffled, labels[listed], None)
        assert numbers(shuffled, test) == [*range(91, 100), *range(909, 1000)]
        assert np.bincount(labels[listed][test]).tolist() == [100, 100]


def test_peer_last10_equals_the_code_it_is_named_after():
    """SpikingJelly's own function puts the same items of a sorted folder into the test set."""
    pytest.importorskip("spikingjelly")  # it wants Python 3.11
    from spikingjelly.datasets import split_to_train_test_set

    names, labels = recordings(37, classes=3)
    walked = sorted(zip(names, labels.tolist(), strict=True))  # as DatasetFolder walks
    _, theirs = split_to_train_test_set(0.9, [(name, label) for name, label in walked], 3)
    ours = choose_test(config("peer_last10"), names, labels, None)
    assert {name for name, _ in theirs} == {n for n, held in zip(names, ours, strict=True) if held}


def test_tebn_first100_is_by_number():
    """Files 0 to 99 of each class, whatever their place in a listing."""
    names, labels = recordings(1000)
    order = np.random.default_rng(0).permutation(len(names))
    shuffled = [names[i] for i in order]
    test = choose_test(config("tebn_first100"), shuffled, labels[order], None)
    assert numbers(shuffled, test) == list(range(100))


def test_stratified_seeded_takes_a_tenth_of_each_class():
    """A tenth of every class, another one for another seed."""
    names, labels = recordings(1000)
    test = choose_test(config("stratified_seeded"), names, labels, None)
    assert test.reshape(2, -1).sum(1).tolist() == [100, 100]
    assert not np.array_equal(
        test, choose_test(config("stratified_seeded", split_seed=1), names, labels, None)
    )


@pytest.mark.parametrize(
    ("split", "pinned"),
    [
        ("peer_last10", "d8176230ff49"),
        ("tebn_first100", "07812331410e"),
        ("stratified_seeded", "f7dee1d062b0"),
    ],
)
def test_the_named_splits_of_cifar10_dvs_are_pinned(split, pinned):
    """The test set of each named split has one digest, on every machine and in every version."""
    from saformer.data.readers.cifar10_dvs import CLASSES

    names = [f"cifar10_{name}_{i}" for name in CLASSES for i in range(1000)]
    test = choose_test(config(split), names, np.repeat(np.arange(10), 1000), None)
    assert digest([name for name, held in zip(names, test, strict=True) if held]) == pinned


@pytest.mark.parametrize("split", [split for split in Split if split is not Split.official])
def test_an_official_split_is_the_only_one(split):
    """Where a test set was published no other split is taken, and the answer says so."""
    names, labels = recordings(20)
    official = np.arange(40) % 2 == 0
    with pytest.raises(SettingError, match=r"dataset.split must be official for cifar10_dvs, not"):
        choose_test(config(split.value), names, labels, official)
    assert choose_test(config("official"), names, labels, official) is official


def test_official_where_there_is_none():
    """CIFAR10-DVS has no official split: the answer names those that there are."""
    with pytest.raises(SettingError, match="must be one of peer_last10, tebn_first100, strat"):
        choose_test(config("official"), *recordings(20), None)


def test_too_few_recordings_for_a_split():
    """A class that would be empty on one side is refused in numbers, not trained without."""
    with pytest.raises(SettingError, match="puts 60 of 60 recordings of class 0 into the test set"):
        choose_test(config("tebn_first100"), *recordings(60), None)
