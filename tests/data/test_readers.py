"""Readers: the files as they are distributed come out right, and bad files are named."""

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import idx

from saformer.data import readers
from saformer.data.readers import digits, fashion_mnist
from saformer.data.settings import DatasetConfig
from saformer.errors import DataError, SettingError

NAMES = {
    ("train", "x"): "train-images-idx3-ubyte",
    ("train", "y"): "train-labels-idx1-ubyte",
    ("test", "x"): "t10k-images-idx3-ubyte",
    ("test", "y"): "t10k-labels-idx1-ubyte",
}


def config(name: str, root: str | Path | None = None) -> DatasetConfig:
    size = 8 if name == "digits" else 28
    return DatasetConfig(
        name=name,
        root=None if root is None else str(root),
        num_classes=10,
        in_channels=1,
        image_size=size,
        mean=[0.3],
        std=[0.3],
    )


def test_digits_are_whole():
    """1437 training and 360 test images, 8x8 grey, stretched to 0..255."""
    data = readers.read(config("digits"), 4)
    assert data.x.shape == (1797, 1, 8, 8) and data.y.shape == (1797,)
    assert len(data.train) == 1437 and data.test.tolist() == list(range(1437, 1797))
    for x, y in ((data.x[part], data.y[part]) for part in (data.train, data.test)):
        assert (x.dtype, y.dtype) == (torch.uint8, torch.int64)
        assert (x.min(), x.max()) == (0, 255)
        assert x.unique().numel() == 17


def test_digits_are_the_known_ones():
    """Labels and class counts are those of the published data set, in its order."""
    data = readers.read(config("digits"), 4)
    assert data.y[:10].tolist() == list(range(10))
    assert data.y[-3:].tolist() == [8, 9, 8]
    both = data.y
    assert torch.bincount(both).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    # The first row of the first image, a zero, is 0 0 5 13 9 1 0 0 on the scale of 0..16.
    assert data.x[0, 0, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]


def test_events_are_no_images(monkeypatch):
    """Frames of events under the settings of images would be scaled as pixels are."""
    source = readers.read(config("digits"), 4)
    frames = replace(source, x=source.x[:, None].expand(-1, 4, -1, -1, -1))
    monkeypatch.setattr(digits, "read", lambda config, timesteps: frames)
    with pytest.raises(SettingError, match=r"^dataset\.events must be set for digits, which is fr"):
        readers.read(config("digits"), 4)


def test_an_unknown_reader_is_answered_with_the_nearest():
    """A misspelt dataset.name gets the name that was meant."""
    with pytest.raises(SettingError, match=r"dataset\.name .*'digit'.*'digits'"):
        readers.read(config("digit"), 4)


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"image_size": 16}, "dataset.image_size must be 8 for digits, not 16"),
        (
            {"in_channels": 2, "mean": [0, 0], "std": [1, 1]},
            "dataset.in_channels must be 1 for digits, not 2",
        ),
        ({"num_classes": 9}, "dataset.num_classes must be at least 10 for digits, not 9"),
    ],
    ids=lambda value: None if isinstance(value, str) else next(iter(value)),
)
def test_settings_that_the_data_do_not_fit_are_answered(changes, answer):
    """Sizes that are set to something else than the files hold are refused before training."""
    with pytest.raises(SettingError) as error:
        readers.read(replace(config("digits"), **changes), 4)
    assert str(error.value) == answer


@pytest.fixture
def arrays():
    """Seven training and three test images."""
    rng = np.random.default_rng(0)
    made = {}
    for part, count in (("train", 7), ("test", 3)):
        made[part, "x"] = rng.integers(256, size=(count, 28, 28), dtype=np.uint8)
        made[part, "y"] = rng.integers(10, size=count, dtype=np.uint8)
    return made


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty root and no files of Debian's, whatever this machine has."""
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "debian")
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def write(folder: Path, arrays: dict, compressed: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for key, array in arrays.items():
        data, name = idx(array), NAMES[key]
        if compressed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(data))
        else:
            (folder / name).write_bytes(data)


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("place", [".", "FashionMNIST/raw", "../debian"])
def test_fashion_mnist_is_found_and_read(root, arrays, place, compressed):
    """Plain or compressed, in the root, in torchvision's folder or in Debian's, all values come."""
    write(root / place, arrays, compressed)
    data = readers.read(config("fashion_mnist", root), 4)
    for part in ("train", "test"):
        x, y = data.x[getattr(data, part)], data.y[getattr(data, part)]
        assert (x.dtype, y.dtype) == (torch.uint8, torch.int64)
        assert np.array_equal(x.numpy(), arrays[part, "x"][:, None])
        assert np.array_equal(y.numpy(), arrays[part, "y"])


def test_own_files_come_before_debians(root, arrays):
    """What the person put into the root wins over what the system has."""
    write(root.parent / "debian", {key: array[:2] for key, array in arrays.items()})
    write(root, arrays)
    assert len(readers.read(config("fashion_mnist", root), 4).train) == 7


def refused(root: Path) -> DataError:
    """Read, and hand over the error after checking that its line has all four parts."""
    with pytest.raises(DataError) as caught:
        readers.read(config("fashion_mnist", root), 4)
    error = caught.value
    message = str(error)
    assert "\n" not in message
    assert message == f"{error.path}: expected {error.expected}, found {error.found}. {error.fix}"
    return error


def test_nothing_there(root):
    """A missing set names the root, the file, the places looked at and two ways to get it."""
    error = refused(root)
    assert error.path == root
    assert NAMES["train", "x"] in error.expected
    assert "FashionMNIST/raw" in error.found and "debian" in error.found
    assert "saformer-data fetch fashion_mnist" in error.fix and "apt-get install" in error.fix


@pytest.mark.parametrize("key", NAMES, ids=NAMES.values())
def test_one_file_missing(root, arrays, key):
    """Of an incomplete set the missing file is named."""
    write(root, arrays)
    (root / NAMES[key]).unlink()
    assert NAMES[key] in refused(root).expected


def test_a_root_that_cannot_be_looked_into(root):
    """A root that the system refuses to look at is answered like one without files."""
    assert "train-images" in refused(root / ("x" * 300)).expected


HTML = b"<!DOCTYPE html><html><body>404 Not Found</body></html>"
BAD_FILES = {
    "html": ("", lambda data: HTML, "an idx file", "54 bytes that begin b'<!DO'"),
    "empty": ("", lambda data: b"", "an idx file", "0 bytes that begin b''"),
    "labels for images": ("", lambda data: idx(np.zeros(7, np.uint8)), "an idx file", "15 bytes"),
    "cut off": ("", lambda data: data[:-5], "5504 bytes for 7 items", "5499 bytes"),
    "too long": ("", lambda data: data + b"\0", "5504 bytes for 7 items", "5505 bytes"),
    "other size": (
        "",
        lambda data: idx(np.zeros((7, 14, 56), np.uint8)),
        "items of (28, 28)",
        "7 of (14, 56)",
    ),
    "no items": (
        "",
        lambda data: idx(np.zeros((0, 28, 28), np.uint8)),
        "items of (28, 28)",
        "0 of (28, 28)",
    ),
    "gz cut off": (
        ".gz",
        lambda data: gzip.compress(data)[:-100],
        "a whole gzip file",
        "a damaged one",
    ),
    "gz html": (".gz", lambda data: HTML, "a whole gzip file", "a damaged one"),
    "gz garbage": (
        ".gz",
        lambda data: gzip.compress(data)[:10] + b"\xff" * 50,
        "a whole gzip file",
        "a damaged one",
    ),
    "gz of html": (".gz", lambda data: gzip.compress(HTML), "an idx file", "begin b'<!DO'"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_named(root, arrays, case):
    """Whatever is wrong with a file: its path, what should be there, what is, and what to do."""
    suffix, damage, expected, found = BAD_FILES[case]
    write(root, arrays)
    good = root / NAMES["train", "x"]
    bad = good.with_name(good.name + suffix)
    content = damage(good.read_bytes())
    good.unlink()
    bad.write_bytes(content)
    error = refused(root)
    assert error.path == bad
    assert error.expected == expected
    assert found in error.found
    assert error.fix.startswith("Remove it and get it again. Run: saformer-data fetch")
    assert bad.read_bytes() == content  # a user's file is never touched


def test_more_labels_than_images(root, arrays):
    """Images and labels that do not belong together are told with both counts."""
    write(root, arrays | {("test", "y"): np.zeros(4, np.uint8)})
    error = refused(root)
    assert error.path == root
    assert error.expected == "as many images as labels in t10k"
    assert error.found == "3 and 4"


def test_a_file_that_cannot_be_read(root, arrays, monkeypatch):
    """A file without permission is named with the system's reason."""
    write(root, arrays)

    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", denied)  # root, as in containers, may read anything
    error = refused(root)
    assert error.path == root / NAMES["train", "x"]
    assert error.found == "Permission denied"
