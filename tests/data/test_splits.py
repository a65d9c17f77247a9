"""A split is stratified, complete, and a function of its seed alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saformer.data.splits import digest, stratified
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
