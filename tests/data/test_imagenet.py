"""ImageNet's folders are listed, checked, loaded the same for every run, and copied smaller."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import WNIDS, picture, pixels, save, write_imagenet
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode, functional

from saformer.data.decode import decode
from saformer.data.image_files import centre_crop
from saformer.data.module import SpikingDataModule
from saformer.data.readers import read
from saformer.data.readers.imagenet import index
from saformer.data.sets import EpochSampler
from saformer.errors import DataError, SettingError
from scripts.resize_images import resize_folder

ONE = "train/n01629819/n01629819_1.JPEG"


@pytest.fixture
def root(tmp_path) -> Path:
    return write_imagenet(tmp_path / "imagenet")


@pytest.fixture
def config(compose, root):
    """Settings of the generated set."""

    def call(*overrides: str):
        return compose(
            "dataset=imagenet",
            f"dataset.root={root}",
            "dataset.num_classes=4",
            "dataset.image_size=32",
            "dataset.num_workers=0",
            "dataset.val_fraction=0.2",
            "augment=none",
            *overrides,
        )

    return call


@pytest.fixture
def data(config):
    """The data module of the generated set."""

    def call(*overrides: str) -> SpikingDataModule:
        made = config(*overrides)
        data = SpikingDataModule(made.dataset, made.augment, made.seed, made.timesteps)
        data.setup()
        return data

    return call


# Listing


def test_images_and_labels(config, root):
    """Every image once, the rank of its wnid as its class, and val as the test set."""
    source = read(config().dataset, 4)
    names = sorted(p.relative_to(root).as_posix() for p in root.rglob("*.JPEG"))
    assert source.x.shape == (32, 3, 32, 32)
    assert source.names == names
    for i, name in enumerate(names):
        assert WNIDS[source.y[i]] == name.split("/")[1]
        assert (i in source.test) == name.startswith("val/") != (i in source.train)
        assert np.array_equal(source.x.decode(i).numpy(), pixels(root / name))


def test_what_is_no_image_is_passed_over(config, root):
    """Lists, archives and the hidden files of other systems do not count."""
    before = index(config().dataset).names
    (root / "train" / ".cache").mkdir()
    (root / "train" / "n01443537.tar").write_bytes(b"x")
    (root / "train" / WNIDS[0] / "._n01443537_0.JPEG").write_bytes(b"x")
    (root / "train" / WNIDS[0] / "Thumbs.db").write_bytes(b"x")
    assert index(config().dataset).names == before


def flatten(root: Path) -> None:
    for folder in (root / "val").iterdir():
        for path in folder.iterdir():
            path.rename(root / "val" / path.name)
        folder.rmdir()


FAULTS = {
    "no folder": (shutil.rmtree, "train", "No such file or directory. Set dataset.root"),
    "no val": (lambda root: shutil.rmtree(root / "val"), "val", "No such file or directory"),
    "flat val": (flatten, "val", "found 8 images in no class folder. Sort them into folders"),
    "class missing": (
        lambda root: shutil.rmtree(root / "train" / WNIDS[1]),
        "train", "expected 4 class folders (dataset.num_classes), found 3",
    ),
    "class missing in val": (
        lambda root: shutil.rmtree(root / "val" / WNIDS[1]),
        "val", "expected the 4 class folders of train/, found 3, of which n01629819 is missing",
    ),
    "another class in val": (
        lambda root: (root / "val" / WNIDS[1]).rename(root / "val" / "n01000000"),
        "val", "found 4, of which n01000000 is new",
    ),
    "class folder empty": (
        lambda root: [path.unlink() for path in (root / "train" / WNIDS[1]).iterdir()],
        "train/n01629819", "expected images, found none",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(config, root, fault):
    """Each fault is told in one line with the folder, what is wrong with it, and what to do."""
    spoil, path, message = FAULTS[fault]
    spoil(root)
    with pytest.raises(DataError) as error:
        index(config().dataset)
    assert str(error.value).startswith(f"{root / path}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value) and error.value.fix.endswith(".")


def test_the_official_counts_are_expected_of_1000_classes(config, tmp_path):
    """A thousand classes must be the whole ImageNet-1k, unless dataset.allow_incomplete is set."""
    root = tmp_path / "large"
    for part in ("train", "val"):
        for i in range(1000):
            (root / part / f"n{i:08d}").mkdir(parents=True)
            (root / part / f"n{i:08d}" / "one.JPEG").touch()
    large = (f"dataset.root={root}", "dataset.num_classes=1000")
    with pytest.raises(DataError, match="expected 1281167 images, found 1000"):
        index(config(*large).dataset)
    found = index(config(*large, "dataset.allow_incomplete=true").dataset)
    assert (len(found.names), found.test.sum()) == (2000, 1000)
    assert found.labels[1999] == 999


def batches(data: SpikingDataModule, epoch: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Training batches of one epoch, as Lightning would fetch them."""
    loader = data.train_dataloader()
    assert isinstance(loader.sampler, EpochSampler)
    loader.sampler.set_epoch(epoch)
    return list(loader)


def epoch_keys(data: SpikingDataModule, epoch: int) -> list[int]:
    sampler = data.train_dataloader().sampler
    sampler.set_epoch(epoch)
    return list(sampler)


def same(one, other) -> bool:
    return all(
        torch.equal(x, x2) and torch.equal(y, y2)
        for (x, y), (x2, y2) in zip(one, other, strict=True)
    )


def test_crops_depend_on_seed_epoch_and_image_alone(data):
    """Neither workers, nor earlier epochs, nor the batch size change a draw; the seed does."""
    crop = ("augment.resized_crop=[0.3,1.0]", "dataset.batch_size=4")
    alone = data(*crop)
    expected = [batches(alone, epoch) for epoch in range(2)]
    assert same(batches(data(*crop), 1), expected[1])  # straight to epoch 1, as after a restart
    helped = data(*crop, "dataset.num_workers=2")
    assert all(key // 19 == 1 for key in epoch_keys(alone, 1))
    assert sorted(key % 19 for key in epoch_keys(alone, 1)) == list(range(19))
    loader = helped.train_dataloader()  # one loader, whose workers live on
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        assert same(list(loader), expected[epoch])
    large = batches(data("augment.resized_crop=[0.3,1.0]", "dataset.batch_size=20"), 0)
    assert torch.equal(torch.cat([x for x, _ in large]), torch.cat([x for x, _ in expected[0]]))

    def by_item(part: SpikingDataModule, epoch: int) -> torch.Tensor:
        images = part._sets["train"]
        return images.__getitems__([epoch * len(images) + place for place in range(4)])[0]

    assert torch.equal(by_item(alone, 0), by_item(helped, 0))
    assert not torch.equal(by_item(alone, 0), by_item(alone, 1))
    assert not torch.equal(by_item(alone, 0), by_item(data(*crop, "seed=1"), 0))


def test_without_a_random_crop_training_sees_the_crop_of_an_evaluation(data, root):
    """augment.resized_crop=null, and every evaluation: no draw, dataset.crop_pct of the image."""
    plain = data("dataset.crop_pct=0.8")
    cropped = data("dataset.crop_pct=0.8", "augment.resized_crop=[0.3,1.0]")
    for name in ("train", "val", "test"):
        part, other = plain._sets[name], cropped._sets[name]
        x, y = part.__getitems__([0, 1])
        for image, item, label in zip(x, part.items[:2].tolist(), y.tolist(), strict=True):
            path = root / plain._source.names[item]
            assert torch.equal(image, centre_crop(decode(path), 32, 0.8))
            assert WNIDS[label] == path.parent.name
        later = part.__getitems__([3 * len(part), 3 * len(part) + 1])[0]
        assert torch.equal(later, x)
        assert torch.equal(other.__getitems__([0, 1])[0], x) == (name != "train")


# In the program


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("dataset.device_resident=true",), "dataset.device_resident must be false for imagenet"),
        (("augment.resized_crop=[0.5]",), "augment.resized_crop must be null or [low, high]"),
        (("augment.resized_crop=[0.5,1.5]",), "augment.resized_crop must be null or [low, high]"),
        (("dataset.crop_pct=0",), "dataset.crop_pct must be above 0 and at most 1, not 0"),
        (
            ("dataset=digits", "dataset.num_classes=10", "dataset.image_size=8",
             "augment.resized_crop=[0.5,1]"),
            "augment.resized_crop must be null for digits",
        ),
        (
            ("dataset=digits", "dataset.num_classes=10", "dataset.image_size=8",
             "dataset.crop_pct=0.9"),
            "dataset.crop_pct must be 1 for digits",
        ),
    ],
)  # fmt: skip
def test_settings_that_are_not_for_this_data(data, overrides, message):
    """A setting that would be passed over in silence is refused."""
    with pytest.raises(SettingError) as error:
        data(*overrides)
    assert str(error.value).startswith(message)


def train(cli, root: Path, workers: int):
    return cli(
        "train",
        "dataset=imagenet",
        f"dataset.root={root}",
        "dataset.num_classes=4",
        "dataset.image_size=32",
        f"dataset.num_workers={workers}",
        "dataset.val_fraction=0.2",
        "dataset.batch_size=20",
        "augment=none",
        "augment.resized_crop=[0.3,1.0]",
        "augment.randaugment=rand-m9-mstd0.5-inc1",
        "augment.cutmix=1.0",
        "timesteps=1",
        "energy=off",
        "trainer=debug",
        "logger=none",
    )


def test_a_training_runs_on_it(cli, root):
    """One batch of each set goes through training, decoded in a worker."""
    code, _, err = train(cli, root, workers=1)
    assert code == 0, err


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_file_stops_a_training_in_one_line(cli, root, workers):
    """The path of the file comes through from a loader's process, without its traceback."""
    for path in (root / "train" / WNIDS[2]).iterdir():
        path.write_bytes(path.read_bytes()[:-50])
    code, _, err = train(cli, root, workers)
    assert code == 2
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in err
    assert f"error: {root / 'train' / WNIDS[2]}" in lines[0]
    assert "damaged or cut off" in lines[0]


# The smaller copy


def test_a_smaller_copy_has_the_same_layout(root, tmp_path):
    """Shorter side 256, same names and shapes; small images as they are; the source untouched."""
    large = root / "train" / WNIDS[0] / "large.JPEG"
    save(large, picture(1, 300, 400))
    save(root / "train" / WNIDS[0] / "tall.JPEG", picture(2, 700, 256 + 20).convert("CMYK"))
    before = {p: p.read_bytes() for p in root.rglob("*.JPEG")}
    target = tmp_path / "small"
    assert resize_folder(root, target, workers=2) == len(before)
    copies = {p.relative_to(target): p for p in target.rglob("*") if p.is_file()}
    assert set(copies) == {p.relative_to(root) for p in before}
    assert {p: p.read_bytes() for p in root.rglob("*.JPEG")} == before
    assert Image.open(target / large.relative_to(root)).size == (341, 256)
    tall = Image.open(target / "train" / WNIDS[0] / "tall.JPEG")
    assert (tall.size, tall.mode) == ((256, 649), "RGB")
    assert (target / ONE).read_bytes() == (root / ONE).read_bytes()
    small = torch.from_numpy(pixels(target / large.relative_to(root)).copy()).float()
    expected = functional.resize(decode(large), [256], InterpolationMode.BICUBIC).float()
    assert (small - expected).abs().mean() < 4  # of 255: what JPEG loses


def test_a_copy_goes_on_where_it_was(root, tmp_path):
    """What is there stays as it is; a file that was being written is written again."""
    target = tmp_path / "small"
    resize_folder(root, target, workers=1)
    (target / ONE).write_bytes(b"kept")
    (target / "val" / WNIDS[0] / "ILSVRC2012_val_00000001.JPEG").unlink()
    (target / "val" / WNIDS[0] / ".ILSVRC2012_val_00000001.JPEG.part").write_bytes(b"half")
    assert resize_folder(root, target, workers=1) == 1
    assert (target / ONE).read_bytes() == b"kept"
    assert sorted(p.name for p in target.rglob("*") if p.is_file()) == sorted(
        p.name for p in root.rglob("*") if p.is_file()
    )


def test_a_copy_that_cannot_be_made(root, tmp_path, monkeypatch, capsys):
    """Its faults are told in one line, and nothing is written into the source."""
    from scripts.resize_images import main

    target = tmp_path / "small"
    broken = root / ONE
    for arguments, message in (
        ((root, root / "small"), f"target must not be in the source {root}"),
        ((root, root), "target must not be in the source"),
        ((tmp_path / "nowhere", target), "nowhere: expected a folder of images, found none"),
        ((root, target, "--workers", "0"), "--workers must be at least 1, not 0"),
        ((root, target, "--workers", "9999"), "--workers must be at most 1024, not 9999"),
        ((root, target), f"{broken}: expected an image, found an empty file"),
    ):
        if arguments == (root, target):
            broken.write_bytes(b"")
        monkeypatch.setattr("sys.argv", ["resize", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        assert message in str(stop.value) and "\n" not in str(stop.value)
    assert not (root / "small").exists()
    assert len(os.listdir(root)) == 2
