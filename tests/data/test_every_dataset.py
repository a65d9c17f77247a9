"""Every configuration of a dataset runs from its files to the test, with its own augmentation.

A new file in conf/dataset fails here until `SETS` says how a small set of it is written.
"""

import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest
from event_files import stream, write_cifar10_dvs, write_gesture
from mostly_slow import mostly_slow
from pictures import idx, write_imagenet, write_tiny

from saformer.config.files import conf_dir
from saformer.data.archives import DISTRIBUTIONS
from saformer.data.readers import cifar10, cifar100, digits, fashion_mnist
from saformer.data.readers.aedat2 import write_aedat2


def nothing(root: Path) -> None:
    """Shipped with the package."""


def cifar(root: Path) -> None:
    """The unpacked archive, of 40 random pictures a file and four classes."""
    layout = {"cifar10": cifar10, "cifar100": cifar100}[root.name].LAYOUT
    folder = root / layout.folder
    folder.mkdir(parents=True)
    for seed, name in enumerate((*layout.train, layout.test)):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 3072), dtype=np.uint8)
        batch = {"data": pixels, layout.labels: [i % 4 for i in range(40)]}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))


def fashion(root: Path) -> None:
    """The four files of torchvision, of 200 and 40 random pictures."""
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for part, count in (("train", 200), ("t10k", 40)):
        images = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", np.arange(count) % 10)):
            data = gzip.compress(idx(array.astype(np.uint8)), 1)
            (folder / f"{part}-{name}-ubyte.gz").write_bytes(data)


def recorded_digits(root: Path) -> None:
    """A recording for every digit, of few events and without the seconds of the simulator."""
    for number, label in enumerate(digits.load()[1]):
        path = root / str(label) / f"digit_{number}.aedat"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_aedat2(path, stream(number, 20, sensor=32))


FEW_CLASSES = ("dataset.num_classes=4", "dataset.val_fraction=0.2")
INCOMPLETE = "dataset.allow_incomplete=true"

# Dataset: what writes a small set, its augmentation, and what such a set and a quick model need.
SETS = {
    "digits": (nothing, "digits", ()),
    "digits_events": (recorded_digits, "none", ("model.patch_size=4",)),
    "fashion_mnist": (fashion, "fashion", ("model.patch_size=4",)),
    "cifar10": (cifar, "cifar", ("model.patch_size=4",)),
    "cifar100": (cifar, "cifar", ("model.patch_size=4",)),
    "tiny_imagenet": (
        lambda root: write_tiny(root, train=6),
        "tiny_imagenet",
        (INCOMPLETE, *FEW_CLASSES, "model.patch_size=8"),
    ),
    "imagenet": (
        write_imagenet,
        "imagenet_spikformer",
        (*FEW_CLASSES, "dataset.num_workers=1", "model.patch_size=16"),
    ),
    "cifar10_dvs": (
        lambda root: write_cifar10_dvs(root, per_class=12),
        "events",
        (INCOMPLETE, "model.patch_size=16"),
    ),
    "dvs128_gesture": (
        lambda root: write_gesture(root, 3, 1),
        "gesture",
        (INCOMPLETE, "dataset.val_fraction=0.34", "model.patch_size=16"),
    ),
}


DATASETS = sorted(path.stem for path in (conf_dir() / "dataset").glob("*.yaml"))


@pytest.mark.parametrize("name", mostly_slow(DATASETS, 3))
def test_a_run_goes_from_the_files_to_the_test(cli, name):
    """`dataset=NAME trainer=debug` trains, validates and tests on the files below data_dir."""
    assert name in SETS, f"conf/dataset/{name}.yaml needs a row in SETS, and so a small set"
    write, augment, overrides = SETS[name]
    write(Path("data") / name)
    code, _, err = cli(
        "train",
        f"dataset={name}",
        f"augment={augment}",
        *overrides,
        "model.dim=16",
        "timesteps=2",
        "energy=off",
        "trainer=debug",
        "trainer.accelerator=cpu",
        "logger=none",
    )
    assert (code, err) == (0, "")


@pytest.mark.parametrize("name", sorted(DISTRIBUTIONS.keys() - {"digits", "digits_events"}))
def test_a_dataset_that_is_not_there_is_told(cli, monkeypatch, name):
    """One line with the folder and how to get the files, and no folder is left behind."""
    monkeypatch.setattr(fashion_mnist, "DEBIAN", Path("nowhere"))  # whatever this machine has
    code, _, err = cli("train", f"dataset={name}", "augment=none", "logger=none")
    assert code == 2 and err.count("\n") == 1
    assert err.startswith(f"error: data/{name}") and ": expected " in err
    assert f"saformer-data fetch {name}" in err or "Get http" in err or "dataset.root" in err
    assert not Path("data").exists()
