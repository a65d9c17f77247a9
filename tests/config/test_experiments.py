"""Every experiment is what its name says and trains as the peer that its comment names."""

import json
import re
from itertools import pairwise
from pathlib import Path

import lightning.pytorch as pl
import pytest
from mostly_slow import mostly_slow

from saformer.config.files import conf_dir
from saformer.config.schema import Interval, ScheduleName
from saformer.data.settings import DatasetConfig
from saformer.runs.experiment import _effective_batch

EXPERIMENTS = sorted(path.stem for path in (conf_dir() / "experiment").glob("*.yaml"))
NAMED = re.compile(r"(?P<dataset>\w+)_(?P<depth>\d+)_(?P<dim>\d+)_t(?P<T>\d+)")

# Epochs with cooldown; lr at its peak, start and end; warm-up, weight decay, batch, accumulation.
CIFAR = (310, 5e-4, 1e-5, 1e-5, 20, 0.06, 64, 1)  # Spikingformer, cifar10/cifar10.yml, 300 epochs
DVS = (106, 1e-3, 1e-5, 1e-5, 10, 0.06, 16, 1)  # Spikformer and Spikingformer, cifar10dvs/train.py
GESTURE = (202, 1e-3, 1e-5, 1e-5, 10, 0.06, 16, 1)  # Spikingformer, dvs128-gesture/train.py
IMAGENET = (310, 5e-4, 1e-6, 1e-5, 20, 0.05, 24, 8)  # Spikformer, imagenet/imagenet.yml, 8 GPUs

# Experiment: recipe, augmentation.
ROWS = {
    **{
        f"{data}_{size}_t4": (CIFAR, "cifar")
        for data in ("cifar10", "cifar100")
        for size in ("2_256", "4_256", "2_384", "4_384")
    },
    "tiny_imagenet_4_384_t4": (CIFAR, "tiny_imagenet"),  # our reading: no peer has one
    **{
        f"imagenet_{size}_t4": (IMAGENET, "imagenet_spikformer")
        for size in ("8_384", "8_512", "8_768")
    },
    **{f"cifar10_dvs_2_256_t{T}": (DVS, "events") for T in (10, 16)},
    **{f"dvs128_gesture_2_256_t{T}": (GESTURE, "gesture") for T in (10, 16)},
}


def parameters(dim: int, depth: int, data: DatasetConfig) -> int:
    """Of Spikingformer without its values, with a 3x3 DWC: stem, blocks and head."""
    stem = [data.in_channels, dim // 8, dim // 4, dim // 2, dim, dim]
    convolutions = sum(9 * a * b + 2 * b for a, b in pairwise(stem))
    attention = 2 * (dim**2 + 2 * dim) + (dim**2 + 3 * dim) + 9 * dim + 2 * dim
    mlp = 8 * dim**2 + 15 * dim
    return convolutions + depth * (attention + mlp) + (dim + 1) * data.num_classes


def test_every_pair_of_dataset_and_size_is_in_the_table():
    """What is named by dataset, size and T has a row, and no row is without a file."""
    assert {name for name in EXPERIMENTS if NAMED.fullmatch(name)} == set(ROWS)


@pytest.mark.parametrize("name", mostly_slow(ROWS, 2))
def test_an_experiment_is_what_its_name_says(compose, name):
    """Dataset, depth, width and timesteps are those in the name; the rest of the model is stock."""
    config, named = compose(f"experiment={name}"), NAMED.fullmatch(name)
    found = (config.dataset.name, config.model.depth, config.model.dim, config.timesteps)
    assert found == (named["dataset"], *(int(named[part]) for part in ("depth", "dim", "T")))
    stock = compose(f"dataset={named['dataset']}", f"model={config.model.name}", "augment=none")
    assert config.attention == stock.attention and config.neuron == stock.neuron
    tokens = (config.dataset.image_size // config.model.patch_size) ** 2
    assert tokens == (196 if named["dataset"] == "imagenet" else 64)
    stock.model.patch_size = config.model.patch_size
    stock.dataset.batch_size = config.dataset.batch_size
    assert (config.model, config.dataset) == (stock.model, stock.dataset)


@pytest.mark.parametrize("name", ROWS)
def test_an_experiment_trains_as_its_peer(compose, name):
    """Epochs, rates, batch, decay, smoothing and augmentation are those of the peer's files."""
    (epochs, lr, start, end, warmup, decay, batch, times), augment = ROWS[name]
    config = compose(f"experiment={name}")
    optimizer, scheduler = config.optimizer, config.scheduler
    assert (config.epochs, optimizer.lr, optimizer.weight_decay) == (epochs, lr, decay)
    assert (scheduler.warmup_lr, scheduler.min_lr, scheduler.warmup_epochs) == (start, end, warmup)
    assert (scheduler.name, scheduler.interval) == (ScheduleName.cosine, Interval.epoch)
    assert scheduler.cooldown_epochs == 10
    assert config.loss.label_smoothing == 0.1 and not config.loss.tet
    assert (config.dataset.batch_size, config.trainer["accumulate_grad_batches"]) == (batch, times)
    assert optimizer.lr_batch == batch * times
    data = (f"dataset={config.dataset.name}", "dataset.flippable=true")
    assert config.augment == compose(*data, f"augment={augment}").augment


@pytest.mark.parametrize("name", mostly_slow(ROWS, 3))
def test_an_experiment_builds_its_backbone(compose, backbone, unweighted, name):
    """The network can be built for the data, and has the parameters of the closed form."""
    shallow = (f"experiment={name}", "model.depth=1")  # further blocks are copies of the first
    config, model = compose(*shallow), backbone(*shallow)
    expected = parameters(config.model.dim, 1, config.dataset)
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_no_experiment_flips_what_a_flip_changes(compose, name):
    """Where a mirrored image is of another class, no experiment mirrors it or lifts the ban."""
    config = compose(f"experiment={name}")
    stock = compose(f"dataset={config.dataset.name}", "augment=none").dataset
    assert config.dataset.flippable == stock.flippable
    assert stock.flippable or config.augment.hflip == 0


SHORT = ("logger=none", "trainer=debug", "energy=off", "hydra.run.dir=run")


@pytest.mark.parametrize(
    ("overrides", "batch"),
    [
        ((), 64),
        (("dataset.batch_size=16", "trainer.accumulate_grad_batches=8"), 128),
        (("trainer.accumulate_grad_batches=2", "optimizer.lr_batch=128"), 128),
    ],
    ids=["default", "accumulated", "agreed"],
)
def test_the_effective_batch_is_written_down(cli, overrides, batch):
    """run.json holds images per optimizer step; where lr has no other batch, nothing is said."""
    code, out, err = cli("train", *SHORT, *overrides)
    assert (code, err) == (0, "")
    assert "lr_batch" not in out
    assert json.loads(Path("run/run.json").read_text())["starts"][0]["effective_batch"] == batch


def test_devices_and_nodes_count(compose):
    """The effective batch is that of all processes together."""
    many = {"accelerator": "cpu", "devices": 2, "num_nodes": 2, "strategy": "ddp"}
    trainer = pl.Trainer(**many, accumulate_grad_batches=3, logger=False, barebones=True)
    assert _effective_batch(compose(), trainer) == 64 * 2 * 2 * 3


def test_another_batch_than_the_recipes_is_told(cli):
    """One line has both numbers, what makes the second, and the settings to change; lr stays."""
    code, out, err = cli("train", *SHORT, "optimizer.lr=5e-4", "optimizer.lr_batch=192")
    assert code == 0
    assert (out + err).count("lr_batch") == 2  # twice in that line, and in no other
    (line,) = (line for line in (out + err).splitlines() if "lr_batch" in line)
    assert line.endswith(
        "optimizer.lr=0.0005 belongs to an effective batch of 192 (optimizer.lr_batch), and this "
        "run's is 64: dataset.batch_size=64 x 1 devices x trainer.accumulate_grad_batches=1. "
        "Change one of these, or choose optimizer.lr and set optimizer.lr_batch=64"
    )
    start = json.loads(Path("run/run.json").read_text())["starts"][0]
    assert start["effective_batch"] == 64
    assert start["config"]["optimizer"]["lr"] == 5e-4


@pytest.mark.parametrize("value", ["0", "-64"])
def test_an_impossible_batch_is_refused(cli, value):
    """optimizer.lr_batch below 1 is answered in one line."""
    code, _out, err = cli("train", f"optimizer.lr_batch={value}")
    assert code == 2
    assert err == f"error: optimizer.lr_batch must be at least 1 or null, not {value}\n"
