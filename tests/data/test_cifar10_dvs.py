"""CIFAR10-DVS in the official layout: labels, order and splits hang on names alone."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from event_files import config, stream, write_cifar10_dvs

from saformer.data import readers, recordings
from saformer.data.events import normalise, to_frames
from saformer.data.module import SpikingDataModule
from saformer.data.readers import cifar10_dvs
from saformer.data.settings import (
    AugmentConfig,
    BadRecordings,
    EventConfig,
    Norm,
    Resize,
    Split,
    SplitBy,
)
from saformer.data.splits import choose_test
from saformer.errors import DataError

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
@pytest.mark.parametrize("norm", [Norm.none, Norm.log1p])
def test_a_batch_is_scaled_and_resized_as_asked(root, resize, norm):
    """What the model is given are the cached frames, scaled, and then resized bilinearly if so."""
    asked = EventConfig(resize=resize, norm=norm)
    of = config("cifar10_dvs", root, split=Split.peer_last10, events=asked)
    data = SpikingDataModule(of, AugmentConfig(), seed=0, timesteps=4)
    data.setup()
    x, y = data.on_after_batch_transfer(next(iter(data.test_dataloader())), 0)
    source = readers.read(of, 4)
    expected = normalise(source.x[source.test].float(), norm).flatten(0, 1)
    if resize is Resize.bilinear:
        expected = F.interpolate(expected, size=(32, 32), mode="bilinear", align_corners=False)
    assert torch.equal(x, expected.unflatten(0, (10, 4))) and y.tolist() == list(range(10))


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


@pytest.fixture(scope="module")
def one_epoch(shared_run, tmp_path_factory):
    """Folder of a run of one epoch, with the set that it was trained on below data/."""
    folder = tmp_path_factory.mktemp("one_epoch")
    write_cifar10_dvs(folder / "data" / "cifar10_dvs", PER_CLASS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cifar10_dvs, "PER_CLASS", PER_CLASS)
        return shared_run(*SMALL, "epochs=1", "scheduler=constant", WARM, RUN, folder=folder)


@pytest.fixture
def trained(one_epoch, monkeypatch):
    """A copy of it; returns the overrides, without the split."""
    monkeypatch.setattr(cifar10_dvs, "PER_CLASS", PER_CLASS)
    shutil.copytree(one_epoch, ".", dirs_exist_ok=True)
    return SMALL


SMALL = [
    *("timesteps=2", "dataset.image_size=32", "model.patch_size=8", "augment=none"),
    *("dataset=cifar10_dvs", "trainer.accelerator=cpu", "logger=none"),
]
WARM, RUN = "scheduler.warmup_epochs=0", "hydra.run.dir=run"
BEST = "ckpt_path=run/checkpoints/best.ckpt"


def test_a_model_is_not_tested_on_what_it_was_trained_on(trained, cli):
    """Another split at evaluation is refused, and what was tested stands in the result."""
    code, _, err = cli("eval", BEST, "dataset.split=stratified_seeded")
    assert code == 2
    assert "was trained with dataset.split=peer_last10, whose test set has 10 items" in err
    assert cli("eval", BEST)[0] == 0
    (written,) = Path("run").glob("eval-*.json")
    tested = json.loads(written.read_text())["data"]
    assert tested == json.loads(Path("run/run.json").read_text())["starts"][0]["data"]


def test_an_evaluation_finds_data_that_moved(trained, cli):
    """`data_dir=` at evaluation moves files and cache, as it does in training."""
    Path("data").rename("elsewhere")
    code, _, err = cli("eval", BEST)
    assert code == 2 and err.startswith("error: data/cifar10_dvs: expected folders")
    assert cli("eval", BEST, "data_dir=elsewhere")[0] == 0
    assert not Path("data").exists()


def test_an_evaluation_finds_the_data_of_its_machine(trained, cli):
    """What conf/local says of places holds for a checkpoint from elsewhere, unless one is typed."""
    Path("data").rename("elsewhere")
    Path("conf/local").mkdir(parents=True)
    local = Path("conf/local/default.yaml")
    local.write_text("# @package _global_\ndata_dir: elsewhere\n")
    assert cli("eval", BEST)[0] == 0
    code, _, err = cli("eval", BEST, "data_dir=nowhere")
    assert code == 2 and err.startswith("error: nowhere/cifar10_dvs: expected folders")
    Path("elsewhere/cache").rename("fast")
    local.write_text(local.read_text() + "dataset:\n  cache_dir: fast\n")
    assert cli("eval", BEST)[0] == 0
    assert not Path("data").exists() and not Path("elsewhere/cache").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dataset.events.norm=log1p", "trained with dataset.events.norm=none, this run has"),
        ("dataset.std=[5,5]", "was trained with dataset.std=[1.0, 1.0], this run has"),
        ("dataset.split=stratified_seeded", "was trained with dataset.split=peer_last10, whose"),
        ("dataset.split_seed=1", "whose train set has 99 items and digest"),
    ],
)
def test_a_training_does_not_go_on_with_other_input(trained, cli, override, message):
    """Frames that are made otherwise, or other recordings, are another training."""
    code, _, err = cli("train", *trained, "epochs=2", "scheduler=constant", WARM, override, BEST)
    assert code == 2 and message in err and err.count("\n") == 1


def test_a_link_that_leads_nowhere_is_named(root):
    """Sets are often links to a shared disk: one whose file is gone is told by name."""
    path = root / "cat" / "cifar10_cat_3.aedat"
    path.unlink()
    path.symlink_to(root / "gone.aedat")
    with pytest.raises(DataError, match=r"cifar10_cat_3.aedat: expected a readable file, found No"):
        cifar10_dvs.index(config("cifar10_dvs", root))


def test_what_was_skipped_and_what_is_missing_are_two_caches(root, monkeypatch):
    """A damaged recording that is left out, and then removed, moves no frame to another label."""
    of = config("cifar10_dvs", root, split=Split.peer_last10, allow_incomplete=True)
    of.events = EventConfig(bad_recordings=BadRecordings.skip)
    path = root / "bird" / "cifar10_bird_5.aedat"
    whole = path.read_bytes()
    before = readers.read(of, 4)
    path.unlink()
    missing = readers.read(of, 4)
    path.write_bytes(whole[:-3])
    monkeypatch.setattr(recordings, "MAX_SKIPPED", 0.1)
    skipped = readers.read(of, 4)
    frames = dict(zip(before.names, before.x, strict=True))
    for source in (missing, skipped):
        assert len(source.names) == len(before.names) - 1
        assert all((frames[n] == x).all() for n, x in zip(source.names, source.x, strict=True))
