"""The simulated recordings: the digits by number, written whole or not at all, and learnable."""

import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from saformer.data.module import SpikingDataModule
from saformer.data.readers import digits, digits_events, read
from saformer.data.readers.aedat2 import write_aedat2 as write
from saformer.data.simulate import record
from saformer.errors import DataError

ROOT = Path("data/digits_events")
FEW = slice(None, None, 30)  # 60 of the 1797 digits, the last 12 for testing


@pytest.fixture
def few(monkeypatch):
    """As if there were 60 digits; returns their images and class numbers."""
    images, labels = (array[FEW] for array in digits.load())
    monkeypatch.setattr(digits, "load", lambda: (images, labels))
    monkeypatch.setattr(digits, "NUM_TEST", 12)
    return images, labels


@pytest.fixture
def config(compose):
    """Settings of the dataset."""
    return compose("dataset=digits_events").dataset


def files() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(ROOT.rglob("*.aedat"))}


def test_a_file_holds_the_recording_of_its_digit(few, config):
    """The reader finds in a file what the camera recorded of that image, event for event."""
    images, labels = few
    digits_events.simulate(config)
    recordings = digits_events.index(config)
    assert recordings.paths[7] == ROOT / str(labels[7]) / "digit_7.aedat"
    for number in (0, 7, 59):
        found, expected = recordings.load(number), record(images[number], seed=number)
        for name in ("t", "x", "y", "p"):
            assert np.array_equal(getattr(found, name), getattr(expected, name))


def test_frames_count_the_events_of_the_files(few, config):
    """From the simulator to frames: none of a recording's events is lost, and labels are right."""
    source = read(config, timesteps=4)
    assert source.x.shape == (60, 4, 2, 32, 32)
    lengths = [len(record(image, seed=number)) for number, image in enumerate(few[0])]
    assert source.x.sum((1, 2, 3, 4)).tolist() == lengths
    assert source.y.tolist() == few[1].tolist()
    assert source.test.tolist() == list(range(48, 60))


def test_every_simulation_writes_the_same_bytes(few, config):
    """A set that was removed comes back the same, and a set that is there is left as it is."""
    digits_events.simulate(config)
    first = files()
    assert len(first) == 60
    shutil.rmtree(ROOT)
    digits_events.simulate(config)
    assert files() == first
    times = {path: path.stat().st_mtime_ns for path in ROOT.rglob("*")}
    digits_events.simulate(config)
    assert {path: path.stat().st_mtime_ns for path in ROOT.rglob("*")} == times


def test_the_split_is_that_of_the_digits(few, compose):
    """The recordings are trained, validated and tested on by the same numbers as the images."""
    items = {}
    for name in ("digits", "digits_events"):
        config = compose(f"dataset={name}", "dataset.val_fraction=0.4")
        data = SpikingDataModule(config.dataset, config.augment, seed=0, timesteps=2)
        data.setup()
        items[name] = {part: each.items.tolist() for part, each in data._sets.items()}
    assert items["digits_events"] == items["digits"]
    found = digits_events.index(config.dataset)
    assert found.labels.tolist() == few[1].tolist()
    assert [path.parent.name for path in found.paths] == list(map(str, few[1]))


def test_a_killed_simulation_is_done_again(few, config):
    """SIGKILL half way leaves no set that looks whole, and the next start writes all of it."""
    code = (
        "from saformer.data.readers import digits_events\n"
        "from saformer.data.settings import DatasetConfig\n"
        f"config = DatasetConfig(name='digits_events', root={str(ROOT)!r}, num_classes=10,\n"
        "    in_channels=2, image_size=32, mean=[0, 0], std=[1, 1])\n"
        "digits_events.simulate(config)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    while not list(Path().glob("data/.digits_events.simulating/*/digit_100.aedat")):
        assert process.poll() is None
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert not ROOT.exists()
    with pytest.raises(DataError, match="found no such folder"):
        digits_events.index(config)
    digits_events.simulate(config)
    assert len(files()) == 60
    assert [path.name for path in Path("data").iterdir() if path.name.startswith(".")] == []


def test_many_at_once_simulate_once(few, config, monkeypatch):
    """Of four that start together one writes the set, and the others wait for it."""
    calls = []
    monkeypatch.setattr(digits_events, "write_aedat2", lambda *args: calls.append(write(*args)))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(digits_events.simulate, [config] * 4))
    assert len(calls) == len(files()) == 60


def test_folders_of_other_names_are_left_alone(few, config):
    """What lies beside the set is not taken for the rest of a killed simulation."""
    for name in (".digits_events-backup", "digits_events-old", ".digits_events"):
        beside = ROOT.with_name(name)
        beside.mkdir(parents=True)
        (beside / "precious.txt").write_text("mine")
    digits_events.simulate(config)
    assert len(list(ROOT.parent.glob("*/precious.txt"))) == 3


def test_a_folder_of_something_else_is_refused_and_left_alone(few, config):
    """Where other files lie, nothing is written, and the answer counts what is missing."""
    (ROOT / "0").mkdir(parents=True)
    (ROOT / "0" / "digit_0.aedat").write_text("mine")
    with pytest.raises(DataError) as error:
        read(config, timesteps=4)
    assert str(error.value) == (
        f"{ROOT}: expected 60 simulated recordings, found 1 (the first missing: 0/digit_1.aedat). "
        "Move the folder away, or set dataset.root to a new one: they are simulated again."
    )
    assert files() == {f"{ROOT}/0/digit_0.aedat": b"mine"}
    assert [path.name for path in Path("data").iterdir()] == ["digits_events"]


def test_a_recording_that_was_cut_off_is_named(few, config):
    """Sizes and headers are looked at before any frame is made, as of CIFAR10-DVS."""
    digits_events.simulate(config)
    path = digits_events.index(config).paths[3]
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError) as error:
        digits_events.index(config)
    assert str(error.value).startswith(
        f"{path}: expected events of 8 bytes after the header, found"
    )


def test_a_place_that_cannot_be_written_to_is_named(few, config):
    """A file in the way of the data folder is answered in one line, and kept."""
    Path("data").write_text("a file")
    with pytest.raises(DataError, match="expected a place to write recordings to"):
        digits_events.simulate(config)
    assert Path("data").read_text() == "a file"


def test_the_experiment_runs_from_nothing(few, cli):
    """One batch of everything, from the simulator to the energy report, without an error."""
    code, _, err = cli(
        "train",
        "experiment=digits_events",
        "trainer=debug",
        "logger=none",
        "hydra.run.dir=run",
        "dataset.batch_size=8",
        "dataset.val_fraction=0.4",
    )
    assert (code, err) == (0, "")
    assert len(files()) == 60


@pytest.mark.slow
def test_the_experiment_learns(cli):
    """The experiment, simulator and cache included, classifies most digits of new writers."""
    code, _, _ = cli(
        "train", "experiment=digits_events", "logger=none", "energy=off", "hydra.run.dir=run"
    )
    assert code == 0
    assert json.loads(Path("run/results.json").read_text())["test"]["test/top1"] > 0.9
