"""CIFAR files in the official format come out right, bad ones are named, and none runs code."""

import os
import pickle
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from saformer.data.module import SpikingDataModule
from saformer.data.readers import read
from saformer.data.settings import AugmentConfig, DatasetConfig
from saformer.data.splits import digest_of
from saformer.errors import DataError

ROWS = 20
FILES = {
    "cifar10": ("cifar-10-batches-py", [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]),
    "cifar100": ("cifar-100-python", ["train", "test"]),
}


class Python2Pickler(pickle._Pickler):
    """Writes byte strings as Python 2 did, which wrote the official files."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_string(self, text: bytes) -> None:
        short = len(text) < 256
        head = b"U" + bytes([len(text)]) if short else b"T" + struct.pack("<i", len(text))
        self.write(head + text)
        self.memoize(text)

    dispatch[bytes] = save_string


def dump(path: Path, value: object) -> None:
    with path.open("wb") as file:
        Python2Pickler(file, protocol=2).dump(value)


def batch(name: str, seed: int) -> dict[bytes, object]:
    """One file's contents: random pictures, class numbers, and what else the official ones hold."""
    rng = np.random.default_rng(seed)
    fine = rng.integers(0, 100 if name == "cifar100" else 10, ROWS).tolist()
    labels = {b"labels": fine}
    if name == "cifar100":
        labels = {b"fine_labels": fine, b"coarse_labels": [label // 5 for label in fine]}
    return {
        b"data": rng.integers(0, 256, (ROWS, 3072), dtype=np.uint8),
        b"filenames": [b"picture_s_%06d.png" % i for i in range(ROWS)],
        b"batch_label": b"a batch",
        **labels,
    }


def config(name: str, root: Path) -> DatasetConfig:
    return DatasetConfig(
        name=name,
        root=str(root),
        num_classes=100 if name == "cifar100" else 10,
        in_channels=3,
        image_size=32,
        mean=[0.5] * 3,
        std=[0.25] * 3,
    )


@pytest.fixture(params=sorted(FILES))
def name(request) -> str:
    return request.param


@pytest.fixture
def folder(name, tmp_path) -> Path:
    """The unpacked archive, with few images."""
    return write(name, tmp_path)


def write(name: str, root: Path) -> Path:
    """Files of random pictures in the archive's folder."""
    inside, files = FILES[name]
    folder = root / inside
    folder.mkdir()
    for seed, file in enumerate(files):
        dump(folder / file, batch(name, seed))
    return folder


@pytest.mark.parametrize("below", [True, False], ids=["unpacked in the root", "is the root"])
def test_images_and_labels(name, folder, below):
    """Every pixel and label of every file, in its order, from either folder one may name."""
    data = read(config(name, folder.parent if below else folder), 4)
    batches = [batch(name, seed) for seed in range(len(FILES[name][1]))]
    labels = b"fine_labels" if name == "cifar100" else b"labels"
    for x, y, parts in (
        (data.x[data.train], data.y[data.train], batches[:-1]),
        (data.x[data.test], data.y[data.test], batches[-1:]),
    ):
        pixels = np.concatenate([part[b"data"] for part in parts])
        assert torch.equal(x, torch.from_numpy(pixels).view(-1, 3, 32, 32))
        assert y.tolist() == [label for part in parts for label in part[labels]]
        assert (x.dtype, y.dtype) == (torch.uint8, torch.int64)


def test_a_red_row_is_red(folder, name):
    """The first 1024 numbers of an image are its red plane, row by row."""
    _, files = FILES[name]
    contents = batch(name, 0)
    contents[b"data"] = np.zeros((ROWS, 3072), np.uint8)
    contents[b"data"][:, :32] = 255
    dump(folder / files[0], contents)
    image = read(config(name, folder), 4).x[0]
    assert image[0, 0].eq(255).all()
    assert image.sum() == 32 * 255


def test_files_of_python_3_are_read_too(name, folder):
    """Mirrors that were written anew by Python 3, with images and labels alone, hold the same."""
    before = read(config(name, folder), 4)
    for seed, file in enumerate(FILES[name][1]):
        contents = {key.decode(): value for key, value in batch(name, seed).items()}
        contents = {
            key: contents[key] for key in contents if key in ("data", "labels", "fine_labels")
        }
        (folder / file).write_bytes(pickle.dumps(contents, protocol=4))
    after = read(config(name, folder), 4)
    assert torch.equal(before.x, after.x) and torch.equal(before.y, after.y)


def digests(root: Path) -> dict[str, str]:
    """Those of CIFAR-10's three sets."""
    of = replace(config("cifar10", root), val_fraction=0.5)
    data = SpikingDataModule(of, AugmentConfig(), seed=0, timesteps=4)
    data.setup()
    return {part: data.describe()[part]["digest"] for part in ("train", "val", "test")}


def test_a_digest_is_of_images_and_not_of_their_places(tmp_path):
    """Two files exchanged make other training and validation sets of as many images."""
    folder = write("cifar10", tmp_path)
    before = digests(tmp_path)
    one, two, kept = (folder / name for name in ("data_batch_1", "data_batch_2", "kept"))
    one.rename(kept)
    two.rename(one)
    kept.rename(two)
    after = digests(tmp_path)
    assert after["test"] == before["test"]
    assert after["train"] != before["train"] and after["val"] != before["val"]


def test_the_two_have_digests_of_their_own(tmp_path):
    """The test images of CIFAR-10 are not those of CIFAR-100, nor the same under other classes."""
    found = set()
    for name in FILES:
        write(name, tmp_path)
        source = read(config(name, tmp_path), 4)
        found.add(digest_of(source.test, source.y.numpy(), source.identify))
        relabelled = source.y.flip(0).numpy()
        found.add(digest_of(source.test, relabelled, source.identify))
    assert len(found) == 4


def change(**changes):
    """A file with some contents changed, or left out where None."""

    def write(path: Path, name: str) -> None:
        contents = batch(name, 0)
        labels = b"fine_labels" if name == "cifar100" else b"labels"
        for key, value in changes.items():
            contents[labels if key == "labels" else key.encode()] = value
        dump(path, {key: value for key, value in contents.items() if value is not None})

    return write


BAD = {
    "cut off": (
        lambda path, name: path.write_bytes(path.read_bytes()[:-100]),
        "expected a CIFAR file, found what cannot be read",
    ),
    "empty": (lambda path, name: path.write_bytes(b""), "found what cannot be read (Ran out"),
    "a web page": (
        lambda path, name: path.write_bytes(b"<html>not found</html>"),
        "found what cannot be read",
    ),
    "another pickle": (lambda path, name: dump(path, [1, 2]), "found something else"),
    "no labels": (change(labels=None), "found keys ["),
    "too few labels": (change(labels=[1] * 7), "found uint8 (20, 3072) and (7,)"),
    "floats": (change(data=np.zeros((ROWS, 3072))), "found float64"),
    "small images": (change(data=np.zeros((ROWS, 192), np.uint8)), "found uint8 (20, 192)"),
    "labels of another set": (change(labels=[100] * ROWS), "found 100 to 100"),
    "no images": (change(data=np.zeros((0, 3072), np.uint8), labels=[]), "found none"),
}


@pytest.mark.parametrize("fault", sorted(BAD))
def test_bad_files_are_named(name, folder, fault):
    """Each fault gives one line with the file, what was expected, what was found and the fix."""
    spoil, answer = BAD[fault]
    path = folder / FILES[name][1][0]
    spoil(path, name)
    with pytest.raises(DataError) as error:
        read(config(name, folder), 4)
    message = str(error.value)
    assert message.startswith(f"{path}: expected ") and answer in message, message
    assert message.endswith("Remove it and unpack the archive again.") and "\n" not in message
    assert path.exists()


def test_missing_files_are_counted(name, folder):
    """What is there is said in numbers, with the command that gets the rest."""
    (folder / FILES[name][1][-1]).unlink()
    count = len(FILES[name][1])
    with pytest.raises(DataError, match=rf"expected {count} files of {name}, found {count - 1} "):
        read(config(name, folder), 4)
    with pytest.raises(DataError, match=rf"found 0 .*saformer-data fetch {name},"):
        read(config(name, folder / "nowhere"), 4)


class Evil:
    """Pickles into a call of the system."""

    def __reduce__(self):
        return os.system, ("touch pwned",)


class Bomb:
    """Pickles into a decompression."""

    def __reduce__(self):
        import codecs

        return codecs.encode, ("text", "zip")


@pytest.mark.parametrize("payload", [Evil(), Bomb()], ids=["code", "codec"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_cannot_run_code(name, folder, payload, protocol):
    """A file that asks for anything but arrays and plain values is refused, and nothing ran."""
    path = folder / FILES[name][1][0]
    path.write_bytes(pickle.dumps({"data": payload, "labels": [0]}, protocol=protocol))
    with pytest.raises(DataError, match="which no CIFAR file does"):
        read(config(name, folder), 4)
    assert not Path("pwned").exists()
