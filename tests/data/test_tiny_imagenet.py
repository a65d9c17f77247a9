"""Tiny-ImageNet is read as it was downloaded and as it is often sorted, and faults are named."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import WNIDS, picture, pixels, save, write_tiny

from saformer.data.readers import read, tiny_imagenet
from saformer.data.readers.tiny_imagenet import index
from saformer.errors import DataError

TRAIN = "train/n01629819/images/n01629819_1.JPEG"


@pytest.fixture
def few(monkeypatch) -> None:
    """Expect three training and two validation images of a class."""
    monkeypatch.setattr(tiny_imagenet, "PER_CLASS", {"train": 3, "val": 2})


@pytest.fixture
def config(compose, tmp_path):
    """Settings of a generated set."""

    def call(root: Path, *overrides: str):
        return compose(
            "dataset=tiny_imagenet",
            f"dataset.root={root}",
            f"dataset.cache_dir={tmp_path / 'cache'}",
            "dataset.num_classes=4",
            "augment=none",
            *overrides,
        ).dataset

    return call


@pytest.mark.parametrize("below", [True, False], ids=["unpacked in the root", "is the root"])
def test_images_and_labels(few, config, tmp_path, below):
    """Every pixel of every image, the rank of its wnid as its class, and val as the test set."""
    folder = write_tiny(tmp_path / "tiny-imagenet-200")
    source = read(config(tmp_path if below else folder), 4)
    assert source.x.shape == (20, 3, 64, 64) and source.x.dtype == torch.uint8
    assert source.names is not None
    for i, name in enumerate(source.names):
        part, wnid, file = name.split("/")
        path = folder / part / (f"{wnid}/images" if part == "train" else "images") / file
        assert np.array_equal(source.x[i].numpy(), pixels(path))
        assert WNIDS[source.y[i]] == wnid
        assert (i in source.test) == (part == "val") != (i in source.train)
    # The table says so, and not the order of the files.
    assert [name for name in source.names if name.startswith(f"val/{WNIDS[3]}")] == [
        f"val/{WNIDS[3]}/val_0.JPEG",
        f"val/{WNIDS[3]}/val_4.JPEG",
    ]


@pytest.mark.parametrize("layout", ["sorted", "sorted deep"])
def test_val_sorted_into_classes_is_the_same_set(few, config, tmp_path, layout):
    """Who sorted val/ into folders has the same images, names and cache as who did not."""
    one = read(config(write_tiny(tmp_path / "one")), 4)
    other = read(config(write_tiny(tmp_path / "other", layout=layout)), 4)
    assert torch.equal(one.x, other.x) and torch.equal(one.y, other.y)
    assert (one.names, one.facts) == (other.names, other.facts)
    assert np.array_equal(one.test, other.test)


def test_an_empty_folder_left_from_sorting_is_no_matter(few, config, tmp_path):
    """The scripts that sort val/ leave val/images and the table behind."""
    root = write_tiny(tmp_path / "data", layout="sorted")
    (root / "val" / "images").mkdir()
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn01443537\t0\t0\t1\t1\n")
    assert index(config(root)).test.sum() == 8


def test_without_wnids_the_training_folders_are_the_classes(few, config, tmp_path):
    """A copy that lost wnids.txt is read the same."""
    root = write_tiny(tmp_path / "data")
    before = index(config(root)).names
    (root / "wnids.txt").unlink()
    assert index(config(root)).names == before


def test_grey_images_become_colour_images(few, config, tmp_path):
    """Some files of the official set are grey; they get three equal channels."""
    root = write_tiny(tmp_path / "data")
    save(root / TRAIN, picture(7).convert("L"))
    source = read(config(root), 4)
    image = source.x[source.names.index("train/n01629819/n01629819_1.JPEG")]
    assert torch.equal(image[0], image[1]) and torch.equal(image[0], image[2])
    assert np.array_equal(image.numpy(), pixels(root / TRAIN))


def test_images_are_decoded_once(few, config, tmp_path):
    """The second reading maps the cache of the first; a changed file makes another one."""
    root = write_tiny(tmp_path / "data")
    cache = tmp_path / "cache"
    first = read(config(root), 4)
    written = (cache / first.facts["cache"] / "images.npy").stat()
    again = read(config(root), 4)
    assert torch.equal(first.x, again.x)
    assert (cache / again.facts["cache"] / "images.npy").stat() == written
    save(root / TRAIN, picture(8))
    changed = read(config(root), 4)
    assert changed.facts["cache"] != first.facts["cache"]
    assert not torch.equal(changed.x, first.x)


def test_the_official_counts_are_expected(config, tmp_path):
    """500 and 50 images of a class, unless dataset.allow_incomplete says that fewer will do."""
    root = write_tiny(tmp_path / "data")
    with pytest.raises(DataError, match="expected 500 images of n01443537, found 3"):
        index(config(root))
    shutil.rmtree(root / "train" / WNIDS[1])
    found = index(config(root, "dataset.allow_incomplete=true"))
    assert (len(found.names), found.test.sum()) == (17, 8)
    assert set(found.labels[~found.test]) == {0, 2, 3}  # no class moved up


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def edit(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new, 1))


VAL = "val/val_annotations.txt"
FAULTS = {
    "no folder": (shutil.rmtree, "", "no train/. Run: saformer-data fetch tiny_imagenet"),
    "no val": (lambda root: shutil.rmtree(root / "val"), "val", "expected a folder of images"),
    "class missing": (
        lambda root: shutil.rmtree(root / "train" / WNIDS[1]),
        "train", "expected 3 images of n01629819, found 0",
    ),
    "wnids.txt cut off": (
        lambda root: edit(root / "wnids.txt", "n01443537\n", ""),
        "wnids.txt", "expected 4 classes (dataset.num_classes), found 3",
    ),
    "class too many": (
        lambda root: (root / "train" / "n09999999").mkdir(),
        "train", "expected only folders of the 4 classes, found also n09999999",
    ),
    "image missing": (
        lambda root: (root / TRAIN).unlink(),
        "train", "expected 3 images of n01629819, found 2. Unpack",
    ),
    "val image missing": (
        lambda root: (root / "val/images/val_0.JPEG").unlink(),
        "val", "expected 2 images of n01644900, found 1",
    ),
    "no table": (lambda root: (root / VAL).unlink(), VAL, "found none"),
    "table cut off": (
        lambda root: (root / VAL).write_text((root / VAL).read_text()[:-17]),
        VAL, "found n016 for val_7.JPEG",
    ),
    "image not in the table": (
        lambda root: edit(root / VAL, "val_3.JPEG", "val_99.JPEG"),
        VAL, "found nothing for val_3.JPEG",
    ),
    "table names another class": (
        lambda root: edit(root / VAL, "n01443537", "n00000001"),
        VAL, "found n00000001 for val_1.JPEG",
    ),
    "image cut off": (lambda root: cut(root / TRAIN), TRAIN, "JPEG of"),
    "image empty": (
        lambda root: (root / TRAIN).write_bytes(b""), TRAIN, "found an empty file",
    ),
    "dangling link": (
        lambda root: ((root / TRAIN).unlink(), os.symlink("gone", root / TRAIN)),
        TRAIN, "No such file",
    ),
    "web page": (
        lambda root: (root / TRAIN).write_text("<!DOCTYPE html><title>Sign in</title>"),
        TRAIN, "found 37 bytes that begin b'<!DOCTYPE html><'",
    ),
    "another size": (
        lambda root: save(root / TRAIN, picture(1, 64, 48)),
        TRAIN, "expected an image of 64x64 pixels, found 64x48",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(few, config, tmp_path, fault):
    """Each fault is told in one line with the file, what is wrong with it, and what to do."""
    root = write_tiny(tmp_path / "data")
    spoil, path, message = FAULTS[fault]
    spoil(root)
    with pytest.raises(DataError) as error:
        read(config(root), 4)
    assert str(error.value).startswith(f"{root / path}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value) and error.value.fix.endswith(".")
    left = list((tmp_path / "cache").glob("tiny_imagenet-*[0-9a-f]"))
    assert not left  # nothing that could be taken for a cache


@pytest.mark.parametrize("resident", ["true", "false"])
def test_a_training_runs_on_it(cli, tmp_path, resident):
    """One batch of each set goes through training with the shipped settings."""
    root = write_tiny(tmp_path / "data", train=6)
    code, _, err = cli(
        "train",
        "dataset=tiny_imagenet",
        f"dataset.root={root}",
        f"dataset.cache_dir={tmp_path / 'cache'}",
        "dataset.allow_incomplete=true",
        "dataset.num_classes=4",
        "dataset.val_fraction=0.2",
        "dataset.batch_size=4",
        f"dataset.device_resident={resident}",
        "augment=none",
        "augment.hflip=0.5",
        "timesteps=1",
        "energy=off",
        "trainer=debug",
        "logger=none",
    )
    assert code == 0, err
