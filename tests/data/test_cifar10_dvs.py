"""CIFAR10-DVS in the official layout: labels, order and splits hang on names alone."""

import os
import shutil

import numpy as np
import pytest
from event_files import config, stream, write_cifar10_dvs

from saformer.data import readers
from saformer.data.events import to_frames
from saformer.data.readers import cifar10_dvs
from saformer.data.settings import Resize, Split, SplitBy
from saformer.data.splits import choose_test

PER_CLASS = 12


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A set of ten classes of twelve recordings."""
    monkeypatch.setattr(cifar10_dvs, "PER_CLASS", PER_CLASS)
    root = tmp_path / "cifar10_dvs"
    write_cifar10_dvs(root, PER_CLASS)
    return root


def test_frames_are_those_of_the_files(root):
    """Frames and class numbers are what was written, in the order of class and number."""
    source = readers.read(config("cifar10_dvs", root, split=Split.peer_last10), 4)
    assert source.x.shape == (10 * PER_CLASS, 4, 2, 32, 32)
    assert source.y.tolist() == np.repeat(np.arange(10), PER_CLASS).tolist()
    for item in (0, 13, 37, 119):
        label, number = divmod(item, PER_CLASS)
        events = stream(100 * label + number, 200)
        expected, _ = to_frames(events, 4, SplitBy.number, 128, 32)
        assert (source.x[item].numpy() == expected).all()
        assert source.names[item] == f"cifar10_{cifar10_dvs.CLASSES[label]}_{number}"


def test_the_split_is_the_asked_one(root):
    """Of twelve, the peers test on the last by name, number 9, and all items are used once."""
    source = readers.read(config("cifar10_dvs", root, split=Split.peer_last10), 4)
    assert [source.names[i] for i in source.test] == [f"cifar10_{c}_9" for c in cifar10_dvs.CLASSES]
    both = np.concatenate([source.train, source.test])
    assert np.sort(both).tolist() == list(range(10 * PER_CLASS))


def test_the_peers_test_on_91_to_99_and_909_to_999(tmp_path):
    """Of a thousand recordings those whose names sort last; TEBN's are the first hundred."""
    folder = tmp_path / "bird"
    folder.mkdir()
    for i in range(1000):
        (folder / f"cifar10_bird_{i}.aedat").write_bytes(b"#!AER-DAT2.0\n" + bytes(8))
    of = config("cifar10_dvs", tmp_path, split=Split.peer_last10, allow_incomplete=True)
    found = cifar10_dvs.index(of)
    assert np.unique(found.labels).tolist() == [2]
    test = choose_test(of, found.names, found.labels, found.test)
    assert np.flatnonzero(test).tolist() == [*range(91, 100), *range(909, 1000)]
    of.split = Split.tebn_first100
    test = choose_test(of, found.names, found.labels, found.test)
    assert np.flatnonzero(test).tolist() == list(range(100))


def test_the_order_of_a_listing_does_not_matter(root, monkeypatch):
    """A file system that lists backwards, and files of other names, change nothing."""
    of = config("cifar10_dvs", root)
    before = cifar10_dvs.index(of)
    (root / "bird" / "cifar10_bird_3 (copy).aedat").write_bytes(b"")
    (root / "banana").mkdir()
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: sorted(listdir(path), reverse=True))
    after = cifar10_dvs.index(of)
    assert (before.names, before.fingerprint) == (after.names, after.fingerprint)
    assert before.names[:3] == [f"cifar10_airplane_{i}" for i in range(3)]


def test_a_missing_class_shifts_no_label(root):
    """What is there of an incomplete set keeps its class numbers."""
    shutil.rmtree(root / "bird")
    (root / "cat" / "cifar10_cat_5.aedat").unlink()
    found = cifar10_dvs.index(config("cifar10_dvs", root, allow_incomplete=True))
    counts = np.bincount(found.labels)
    assert counts.tolist() == [12, 12, 0, 11, 12, 12, 12, 12, 12, 12]
    assert all(
        name.split("_")[1] == cifar10_dvs.CLASSES[label]
        for name, label in zip(found.names, found.labels, strict=True)
    )


def test_a_changed_file_is_another_source(root):
    """The fingerprint, and with it the cache, follows the sizes of the files."""
    of = config("cifar10_dvs", root)
    before = cifar10_dvs.index(of).fingerprint
    with (root / "ship" / "cifar10_ship_0.aedat").open("ab") as file:
        file.write(bytes(8))
    assert cifar10_dvs.index(of).fingerprint != before


def test_bilinear_keeps_the_sensors_frames(root):
    """Frames that the device resizes are cached as the sensor saw them."""
    of = config("cifar10_dvs", root, split=Split.peer_last10)
    of.events.resize = Resize.bilinear
    assert readers.read(of, 4).x.shape[-2:] == (128, 128)


@pytest.mark.parametrize("resize", Resize)
def test_a_run_goes_from_the_files_to_the_test(root, cli, resize):
    """`trainer=debug` trains, validates and tests on the recordings, and exits with 0."""
    code, _, err = cli(
        "train",
        "dataset=cifar10_dvs",
        f"dataset.root={root}",
        f"dataset.cache_dir={root.parent / 'cache'}",
        "dataset.image_size=32",
        f"dataset.events.resize={resize.value}",
        "model.patch_size=8",
        "model.dim=16",
        "augment=none",
        "timesteps=4",
        "trainer=debug",
        "logger=none",
    )
    assert code == 0, err
