"""`saformer-data` on small files in the official layouts, from the command line to a training."""

import hashlib
import io
import pickle
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from saformer.commands import data as commands
from saformer.data.archives import DISTRIBUTIONS
from saformer.data.events import Events
from saformer.data.readers import digits
from saformer.data.readers.aedat2 import write_aedat2
from saformer.data.readers.cifar10_dvs import CLASSES
from saformer.data.simulate import record

KNOWN = (
    "cifar10, cifar100, cifar10_dvs, digits, digits_events, dvs128_gesture, fashion_mnist, "
    "imagenet, tiny_imagenet"
)
ROWS = 20  # images in a CIFAR file
CLIPS = 10  # recordings of a class


def publish(monkeypatch, name: str, archives: dict[str, bytes], **files: int) -> str:
    """Put archives in the place of the published ones; returns the address of their folder."""
    mirror = Path("mirror").absolute()
    mirror.mkdir(exist_ok=True)
    parts = []
    for part in DISTRIBUTIONS[name].parts:
        data = archives[part.archive]
        (mirror / part.archive).write_bytes(data)
        md5 = hashlib.md5(data).hexdigest()
        counts = {pattern: files.get("count", number) for pattern, number in part.files.items()}
        parts.append(replace(part, md5=md5, size=len(data), files=counts, urls=()))
    small = replace(DISTRIBUTIONS[name], parts=tuple(parts))
    monkeypatch.setitem(DISTRIBUTIONS, name, small)
    return mirror.as_uri()


@pytest.fixture
def cifar(monkeypatch) -> str:
    """CIFAR-10 with few images; the address of its archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for seed, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
            pixels = np.random.default_rng(seed).integers(0, 256, (ROWS, 3072), dtype=np.uint8)
            batch = {"data": pixels, "labels": [i // 2 for i in range(ROWS)]}
            data = pickle.dumps(batch, protocol=2)
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return publish(monkeypatch, "cifar10", {"cifar-10-python.tar.gz": buffer.getvalue()})


@lru_cache
def recorded(label: int, i: int) -> Events:
    """What the simulated camera sees of one of the digits."""
    return record(digits.load()[0][CLIPS * label + i], seed=i)


@pytest.fixture
def dvs(monkeypatch, tmp_path) -> str:
    """CIFAR10-DVS with few recordings, of the simulated camera; the address of its archives."""
    archives = {}
    path = tmp_path / "one.aedat"
    for label, name in enumerate(CLASSES):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for i in range(CLIPS):
                write_aedat2(path, recorded(label, i))
                archive.write(path, f"{name}/cifar10_{name}_{i}.aedat")
        archives[f"{name}.zip"] = buffer.getvalue()
    return publish(monkeypatch, "cifar10_dvs", archives, count=CLIPS)


@pytest.mark.parametrize("words", [["--help"], []])
def test_help(cli, words):
    """Help shows every command and dataset."""
    code, out, err = cli("data", *words)
    assert (code, err) == (0, "")
    for command in ("list", "fetch cifar10", "check cifar10_dvs", "build cifar10_dvs timesteps=10"):
        assert f"\n  {command}" in out
    assert out.endswith(f"datasets: {KNOWN}\n")


@pytest.mark.parametrize("words", [["--help"], ["ftech"], ["list", "digits"]])
def test_what_needs_no_torch_does_not_load_it(words):
    """Help, errors, list and fetch answer without the seconds that torch takes."""
    code = (
        "import sys, saformer.cli\n"
        f"sys.argv = ['saformer-data', *{words}]\n"
        "try: saformer.cli.data()\n"
        "finally: assert 'torch' not in sys.modules, 'torch'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "torch" not in done.stderr and "Traceback" not in done.stderr


WRONG = [
    (
        ["ftech", "cifar10"],
        "there is no command 'ftech'. Did you mean 'fetch'? Commands: list, fetch, check, build",
    ),
    (["fetch"], f"fetch needs a dataset. Type saformer-data fetch NAME: {KNOWN}"),
    (["check", "data_dir=x"], f"check needs a dataset. Type saformer-data check NAME: {KNOWN}"),
    (
        ["fetch", "cifar"],
        f"dataset has no option 'cifar'. Did you mean 'cifar10'? Options: {KNOWN}",
    ),
    (
        ["fetch", "cifar10", "--miror", "x"],
        "unrecognized arguments: --miror x. Help: saformer-data --help",
    ),
    (["fetch", "cifar10", "datadir=x"], "there is no setting 'datadir'. Did you mean 'data_dir'?"),
    (["build", "cifar10_dvs", "timesteps=0"], "timesteps must be at least 1, not 0"),
]


@pytest.mark.parametrize(("words", "answer"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_wrong_words(cli, words, answer):
    """A wrong word is answered in one line with exit code 2, and nothing else is printed."""
    code, out, err = cli("data", *words)
    assert (code, out, err) == (2, "", f"error: {answer}\n")


def test_the_script_answers_in_one_line(tmp_path):
    """The installed command does the same in a process of its own."""
    script = Path(sys.executable).with_name("saformer-data")
    done = subprocess.run([script, "fetch", "cifar"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: dataset has no option 'cifar'. Did you mean 'cifar10'?")
    assert done.stderr.count("\n") == 1


def test_fetch_and_check(cli, compose, cifar):
    """CIFAR-10 from an archive to what a training reads, where data_dir says, of one digest."""
    code, out, err = cli("data", "fetch", "cifar10", "data_dir=here", "--mirror", cifar)
    assert (code, err) == (0, "")
    assert "here/cifar10/cifar-10-batches-py: 6 files unpacked" in out
    code, out, err = cli("data", "check", "cifar10", "data_dir=here")
    assert (code, err) == (0, "")
    size = Path("mirror/cifar-10-python.tar.gz").stat().st_size
    checked = (
        "cifar10 in here/cifar10\n"
        f"  cifar-10-batches-py: 6 of 6; cifar-10-python.tar.gz, {size / 1000:.1f} kB, "
        "MD5 as published\n"
        "  120 items: 10 classes of 12\n"
        "  split official: 100 for training and validation, 20 for testing (digest "
    )
    from saformer.data.module import SpikingDataModule

    config = compose("dataset=cifar10", "data_dir=here")
    data = SpikingDataModule(config.dataset, config.augment, config.seed, config.timesteps)
    data.setup()
    test_set = data.describe()["test"]
    assert out == f"{checked}{test_set['digest']})\n" and test_set["size"] == 20


def test_dvs_from_archives_to_a_batch(cli, compose, dvs, monkeypatch):
    """CIFAR10-DVS: ten archives, unpacked, checked, and a cache whose batches hold every event."""
    assert cli("data", "fetch", "cifar10_dvs", "--mirror", dvs)[0] == 0
    few = ["dataset.allow_incomplete=true", "timesteps=5", "dataset.image_size=32"]
    code, out, err = cli("data", "check", "cifar10_dvs", *few)
    assert (code, err) == (0, "")
    assert f"  bird: {CLIPS} of {CLIPS}; bird.zip, " in out
    assert "  100 items: 10 classes of 10\n" in out
    assert "  split peer_last10: 90 for training and validation, 10 for testing (digest " in out
    assert out.endswith("  no cache; to make it now: saformer-data build cifar10_dvs\n")

    code, out, err = cli("data", "build", "cifar10_dvs", *few)
    assert (code, err) == (0, "")
    assert "1.0 MB, built in " in out
    events = sum(len(recorded(label, i)) for label in range(10) for i in range(CLIPS))
    assert f"{events} events in 100 recordings; 0 cells cut off at 255" in out
    (cache,) = Path("data/cache").glob("cifar10_dvs-????????????????")
    assert str(cache) in out
    assert "was there" in cli("data", "build", "cifar10_dvs", *few)[1]

    out = cli("data", "check", "cifar10_dvs", *few)[1]
    about = "timesteps 5, split_by number, size 32, bad_recordings error"
    assert out.endswith(f"  cache {cache}, 1.0 MB: {about}\n")

    from saformer.data import cache as caches
    from saformer.data.module import SpikingDataModule

    config = compose("dataset=cifar10_dvs", "dataset.val_fraction=0.2", *few)
    monkeypatch.setattr(caches, "_build", None)  # whoever builds again fails
    data = SpikingDataModule(config.dataset, config.augment, config.seed, config.timesteps)
    data.setup()
    assert data.describe()["cache"] == cache.name
    x, y = data.on_after_batch_transfer(next(iter(data.test_dataloader())), 0)
    assert x.shape == (10, 5, 2, 32, 32) and y.tolist() == list(range(10))
    # Of ten, the peers test on number 9 of each class.
    assert x.sum((1, 2, 3, 4)).tolist() == [len(recorded(label, 9)) for label in range(10)]


def test_check_counts_what_is_missing(cli, cifar):
    """Of several datasets each is checked; what is not whole is told and makes the exit code 1."""
    cli("data", "fetch", "cifar10", "--mirror", cifar)
    folder = Path("data/cifar10/cifar-10-batches-py")
    (folder / "data_batch_3").unlink()
    Path("data/cifar10/cifar-10-python.tar.gz").unlink()
    code, out, err = cli("data", "check", "cifar10", "digits")
    assert code == 1
    assert err == (
        f"error: {folder}: expected 6 files of cifar10, found 5 (the first missing: data_batch_3). "
        "Run: saformer-data fetch cifar10, or set dataset.root to where they are.\n"
    )
    assert out.startswith("cifar10 in data/cifar10\n  cifar-10-batches-py: 5 of 6\ndigits, shipped")
    code, _, err = cli("data", "fetch", "cifar10", "--mirror", cifar)
    assert (code, err) == (
        2,
        f"error: {folder}: expected 6 files of cifar-10-python.tar.gz, found 5. It was not "
        "changed: move it away and run saformer-data fetch cifar10 to unpack it again.\n",
    )


def test_check_holds_archives_against_their_sums(cli, cifar):
    """An archive that was changed since is told, though the files are there."""
    cli("data", "fetch", "cifar10", "--mirror", cifar)
    archive = Path("data/cifar10/cifar-10-python.tar.gz")
    archive.write_bytes(archive.read_bytes()[:-1])
    code, out, err = cli("data", "check", "cifar10")
    assert out.endswith(" kB\n")  # the error has a line of its own
    assert code == 1 and err.startswith(f"error: {archive}: expected MD5 ") and "\n" not in err[:-1]


def row(out: str, name: str) -> str:
    """A line of the list, with single spaces."""
    (line,) = [line for line in out.splitlines() if line.startswith(f"{name} ")]
    return " ".join(line.split())


def test_list_shows_every_state(cli, cifar, monkeypatch):
    """Every dataset has a line: what is there of it, its size, folder and cache."""
    monkeypatch.setitem(
        DISTRIBUTIONS,
        "fashion_mnist",
        replace(DISTRIBUTIONS["fashion_mnist"], places=("",)),  # whatever this machine has
    )
    _, out, err = cli("data", "list", "data_dir=d")
    assert err == ""
    assert [line.split()[0] for line in out.splitlines()[1:]] == KNOWN.split(", ")
    assert row(out, "digits") == "digits shipped"
    assert row(out, "digits_events") == "digits_events made when first used d/digits_events"
    assert row(out, "fashion_mnist") == "fashion_mnist missing d/fashion_mnist"
    assert row(out, "cifar10") == "cifar10 missing d/cifar10"

    archive = Path("d/cifar10/download/cifar-10-python.tar.gz")
    archive.parent.mkdir(parents=True)
    archive.write_bytes(b"x" * 2000)  # list does not read it
    for name in ("airplane/cifar10_airplane_0.aedat", "bird/cifar10_bird_0.aedat"):
        path = Path("d/cifar10_dvs") / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x" * 500)
    for name in ("cifar10_dvs-0123456789abcdef", ".cifar10_dvs-0123456789abcdef-x"):
        (Path("d/cache") / name).mkdir(parents=True)
        (Path("d/cache") / name / "frames.npy").write_bytes(b"x" * 1500)
    _, out, _ = cli("data", "list", "cifar10", "cifar10_dvs", "data_dir=d")
    assert row(out, "cifar10") == "cifar10 archives only, 1 of 1 2.0 kB d/cifar10"
    expected = "cifar10_dvs incomplete: 2 of 10000 1.0 kB d/cifar10_dvs 3.0 kB"
    assert row(out, "cifar10_dvs") == expected

    archive.unlink()
    cli("data", "fetch", "cifar10", "data_dir=d", "--mirror", cifar)
    _, out, _ = cli("data", "list", "cifar10", "data_dir=d")
    assert row(out, "cifar10").startswith("cifar10 ready ") and len(out.splitlines()) == 2


def test_fetch_of_what_is_not_fetched(cli):
    """Shipped and simulated data say so; manual steps are told, and are not yet done."""
    assert cli("data", "fetch", "digits") == (
        0, "The package contains digits: there is nothing to fetch.\n", "",
    )  # fmt: skip
    assert cli("data", "fetch", "digits_events")[0] == 0
    code, out, err = cli("data", "fetch", "dvs128_gesture", "imagenet")
    assert (code, err) == (1, "")
    assert "https://ibm.ent.box.com" in out and "put it into data/dvs128_gesture" in out
    assert "data/imagenet/train/n01440764/*.JPEG" in out


def test_imagenet_that_is_there(cli):
    """ImageNet's steps are not told to who has taken them."""
    for part in ("train", "val"):
        for number in range(1000):
            (Path("data/imagenet") / part / f"n{number:08}").mkdir(parents=True)
    assert cli("data", "fetch", "imagenet") == (0, "data/imagenet: is there\n", "")


def test_build_of_what_needs_none(cli):
    """A dataset without a cache says so and succeeds."""
    assert cli("data", "build", "digits") == (0, "digits needs no cache: it is read as it is\n", "")


def test_an_experiment_chooses_the_dataset(cli):
    """Without a name, experiment= or dataset= says which dataset is meant."""
    out = cli("data", "check", "experiment=digits_events")[1]
    assert out.startswith("digits_events in data/digits_events\n")
    assert cli("data", "check", "dataset=digits")[1].startswith("digits, shipped\n  1797 items")


def test_a_dataset_of_ones_own(cli, monkeypatch):
    """A configuration without a catalogue entry is listed, and fetch says where its files go."""
    monkeypatch.delitem(DISTRIBUTIONS, "cifar100")
    code, _, err = cli("data", "fetch", "cifar100")
    assert (code, err) == (
        2, "error: no download is known for cifar100: put its files into data/cifar100\n",
    )  # fmt: skip
    assert row(cli("data", "list", "cifar100")[1], "cifar100") == "cifar100 missing data/cifar100"


def test_our_own_faults_keep_their_traceback(cli, monkeypatch):
    """An exception that is not the user's mistake is never hidden."""

    def broken(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(commands, "fetch", broken)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        cli("data", "fetch", "cifar10")
