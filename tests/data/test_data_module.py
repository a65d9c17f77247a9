"""The data module hands out every image once an epoch, reproducibly, ready for the model."""

from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from mostly_slow import mostly_slow

from saformer.data.module import SpikingDataModule
from saformer.data.readers import read
from saformer.errors import CheckpointError, SettingError


class Recorder(pl.LightningModule):
    """Keeps every training batch as the model would see it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.batches: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.seen: dict[str, list] = {"validation": [], "test": []}

    def training_step(self, batch, batch_idx):
        self.batches.append(batch)
        return self.weight * 0

    def validation_step(self, batch, batch_idx):
        self.seen["validation"].append(batch)

    def test_step(self, batch, batch_idx):
        self.seen["test"].append(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def fit(compose, tmp_path):
    """Run the loops over a data module; returns the recorder and the trainer."""

    def call(*overrides: str, epochs: int = 1, ckpt_path=None):
        config = compose(*overrides)
        data = SpikingDataModule(config.dataset, config.augment, config.seed, config.timesteps)
        recorder = Recorder()
        trainer = pl.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=tmp_path,
        )
        trainer.fit(recorder, data, ckpt_path=ckpt_path, weights_only=True)
        trainer.test(recorder, data, verbose=False)
        return recorder, trainer

    return call


def split(compose, *overrides: str) -> SpikingDataModule:
    config = compose(*overrides)
    data = SpikingDataModule(config.dataset, config.augment, config.seed, config.timesteps)
    data.setup()
    return data


def require_same(one: list, other: list) -> None:
    """There are batches, and they are the same images and labels."""
    assert len(one) == len(other) > 0
    for (x, y), (x2, y2) in zip(one, other, strict=True):
        assert torch.equal(x, x2) and torch.equal(y, y2)


def test_each_set_is_seen_once(fit, compose):
    """An epoch has every training image once; validation and test have theirs."""
    data = compose().dataset
    recorder, _ = fit("augment=none")
    sizes = {
        "train": sum(len(y) for _, y in recorder.batches),
        **{name: sum(len(y) for _, y in seen) for name, seen in recorder.seen.items()},
    }
    assert sizes == {"train": 1293, "validation": 144, "test": 360}
    images = torch.cat(
        [x for x, _ in recorder.batches] + [x for x, _ in recorder.seen["validation"]]
    )
    found = ((images * 0.3761 + 0.3057) * 255).round().to(torch.uint8)
    source = read(data, 4)
    assert sorted(map(bytes, found.numpy())) == sorted(map(bytes, source.x[source.train].numpy()))


def test_images_are_normalised(fit):
    """The training images have mean 0 and deviation 1, as dataset.mean and dataset.std promise."""
    recorder, _ = fit("augment=none")
    images = torch.cat([x for x, _ in recorder.batches])
    assert images.dtype == torch.float32
    assert abs(images.mean().item()) < 0.02
    assert abs(images.std().item() - 1) < 0.02


def test_order_and_augmentation_depend_on_the_seed_alone(fit):
    """One seed gives the same batches whatever else drew random numbers; another seed does not."""
    torch.manual_seed(1)
    first, _ = fit("seed=5", "augment.mixup=0.4")
    torch.manual_seed(2)
    same, _ = fit("seed=5", "augment.mixup=0.4")
    other, _ = fit("seed=6", "augment.mixup=0.4")
    require_same(first.batches, same.batches)
    assert not torch.equal(first.batches[0][0], other.batches[0][0])


def test_epochs_differ(fit):
    """Order and draws of the second epoch are not those of the first."""
    recorder, _ = fit(epochs=2)
    half = len(recorder.batches) // 2
    assert not torch.equal(recorder.batches[0][1], recorder.batches[half][1])
    plain, _ = fit("dataset.train_subset=20", "dataset.val_fraction=0.5", epochs=2)
    (x, y), (x2, y2) = plain.batches
    assert sorted(y.tolist()) == sorted(y2.tolist())
    assert not torch.equal(x.flatten(1).sum(1).sort()[0], x2.flatten(1).sum(1).sort()[0])


def test_every_batch_has_draws_of_its_own(fit):
    """Seed, epoch and batch each change what is drawn, whatever images are in the batch."""
    drawn = []
    for seed in (5, 6):
        mixing = (f"seed={seed}", "augment.mixup=1.0", "dataset.train_subset=200")
        recorder, _ = fit(*mixing, epochs=2)
        # The larger share of MixUp, which all images of a batch have in common.
        drawn += [targets.amax(1).min().item() for _, targets in recorder.batches]
    assert len(set(drawn)) == len(drawn) == 2 * 2 * 3


def test_a_resumed_training_sees_the_same_batches(fit, tmp_path):
    """Epoch three after a restart has the batches of epoch three without one."""
    whole, _ = fit("augment.mixup=0.4", epochs=3)
    _, trainer = fit("augment.mixup=0.4", epochs=2)
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    rest, _ = fit("augment.mixup=0.4", epochs=3, ckpt_path=tmp_path / "two.ckpt")
    expected = whole.batches[-len(rest.batches) :]
    assert len(rest.batches) == len(whole.batches) // 3
    require_same(rest.batches, expected)


@pytest.mark.parametrize("workers", mostly_slow([0, 1]))
def test_mixing_stops_at_its_epoch(fit, tmp_path, workers):
    """From mixup_off_epoch on, labels are class numbers again: with workers and after a resume."""
    mixing = (
        "augment.mixup=0.4",
        "augment.mixup_off_epoch=2",
        f"dataset.num_workers={workers}",
        "dataset.train_subset=200",
    )
    whole, _ = fit(*mixing, epochs=4)
    each = len(whole.batches) // 4
    kinds = [y.dtype for _, y in whole.batches]
    assert kinds == [torch.float32] * 2 * each + [torch.int64] * 2 * each
    for done in (1, 3):
        _, trainer = fit(*mixing, epochs=done)
        trainer.save_checkpoint(tmp_path / "part.ckpt")
        rest, _ = fit(*mixing, epochs=4, ckpt_path=tmp_path / "part.ckpt")
        assert [y.dtype for _, y in rest.batches] == kinds[done * each :]


@pytest.mark.parametrize(
    "setting", ["augment.crop_padding=2", "augment.degrees=30", "augment.erase=1.0"]
)
def test_augmentation_reaches_the_training(fit, setting):
    """Moves of whole pixels, affine maps and erasing change the images, and no label."""
    few = ("augment=none", "dataset.train_subset=200")
    plain, _ = fit(*few)
    changed, _ = fit(*few, setting)
    assert plain.batches
    for (x, y), (x2, y2) in zip(plain.batches, changed.batches, strict=True):
        assert torch.equal(y, y2) and not torch.equal(x, x2)


def test_erased_pixels_have_the_mean(fit):
    """Erasing comes after the normalisation, and sets a part of every image to 0."""
    few = ("augment=none", "dataset.train_subset=200")
    for share in (0, 1):
        recorder, _ = fit(*few, f"augment.erase={share}")
        images = torch.cat([x for x, _ in recorder.batches])
        assert (images == 0).flatten(1).any(1).float().mean() == share


def test_evaluation_is_not_augmented(fit):
    """Validation and test images come as they are, with class numbers."""
    plain, _ = fit("augment=none")
    mixed, _ = fit("augment.mixup=0.4", "augment.degrees=45")
    for name in ("validation", "test"):
        require_same(plain.seen[name], mixed.seen[name])
        assert all(y.dtype == torch.int64 for _, y in mixed.seen[name])


def test_workers_change_nothing(fit):
    """Loader processes give the batches that the main process gives."""
    alone, _ = fit()
    helped, _ = fit("dataset.num_workers=1")
    require_same(alone.batches, helped.batches)


def test_a_resident_set_gives_the_batches_of_a_loader(fit):
    """dataset.device_resident changes where the images wait and nothing else."""
    loaded, _ = fit("augment.mixup=0.4", epochs=2)
    resident, _ = fit("augment.mixup=0.4", "dataset.device_resident=true", epochs=2)
    for one, other in (
        (loaded.batches, resident.batches),
        (loaded.seen["validation"], resident.seen["validation"]),
        (loaded.seen["test"], resident.seen["test"]),
    ):
        require_same(one, other)


def test_a_resident_set_sends_numbers_in_the_place_of_images(compose):
    """What a resident set's loader hands out for a batch is 8 bytes an image."""
    data = split(compose, "dataset.device_resident=true")
    x, y = next(iter(data.train_dataloader()))
    assert (x.dtype, x.shape) == (torch.int64, y.shape)


def test_a_checkpoint_belongs_to_its_split(fit, tmp_path):
    """A checkpoint holds size and digest of each set, and is not resumed on other items."""
    _, trainer = fit()
    path = tmp_path / "one.ckpt"
    trainer.save_checkpoint(path)
    kept = torch.load(path, weights_only=True)["SpikingDataModule"]
    assert kept["split"] == "official"
    assert kept["train"] == {"size": 1293, "digest": "6de386932131"}
    fit(epochs=2, ckpt_path=path)
    with pytest.raises(CheckpointError) as error:
        fit("dataset.split_seed=1", epochs=2, ckpt_path=path)
    assert "whose train set has 1293 items and digest 6de386932131; now it has 1293" in str(
        error.value
    )
    with pytest.raises(CheckpointError, match=r"whose train set has 1293 items .* now it has 450"):
        fit("dataset.train_subset=500", epochs=2, ckpt_path=path)


def test_an_older_checkpoint_is_compared_by_its_own_rule(compose):
    """Its digests are of names, or of numbers where there are none: it is gone on from, tested."""
    data, other = split(compose), split(compose, "dataset.split_seed=1")
    older = {
        "dataset": "digits",
        "split": "official",
        "train": {"size": 1293, "digest": "816b0b961271"},
        "val": {"size": 144, "digest": "c413c056db0e"},
        "test": {"size": 360, "digest": "4eda8f2819f5"},
        "epochs": 3,
    }
    data.load_state_dict(older)
    other.require_same(older, ["test"])
    with pytest.raises(CheckpointError, match=r"digest 816b0b961271; now it has 1293"):
        other.load_state_dict(older)


def test_a_subset_is_stratified_and_keeps_the_test_set(compose):
    """train_subset takes its share of every class, for training and validation together."""
    data = split(compose, "dataset.train_subset=100")
    sizes = {name: data.describe()[name]["size"] for name in ("train", "val", "test")}
    assert sizes == {"train": 90, "val": 10, "test": 360}
    labels = data._sets["train"].y[data._sets["train"].items]
    assert labels.bincount().tolist() == [9] * 10


def test_the_split_is_the_same_for_every_run(compose):
    """The default split of digits is pinned: runs of different seeds and machines compare."""
    described = split(compose, "seed=7").describe()
    digests = {name: described[name]["digest"] for name in ("train", "val", "test")}
    assert digests == {"train": "6de386932131", "val": "85b0e4e9f0c8", "test": "f8f95f84c3c7"}
    other = split(compose, "dataset.split_seed=1").describe()
    assert other["train"]["digest"] != digests["train"]
    assert other["test"]["digest"] == digests["test"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("dataset.train_subset=2000",), "dataset.train_subset must be at most 1437"),
        (("dataset.train_subset=5",), "dataset.train_subset picks 5 of 1437 images"),
        (("dataset.val_fraction=0.001",), "dataset.val_fraction picks 1 of 1437 images"),
        (("dataset.name=digit",), "dataset.name has no reader 'digit'. Did you mean 'digits'?"),
        (("dataset.name=cifar",), "dataset.name has no reader 'cifar'. Did you mean 'cifar10'?"),
        (("dataset.image_size=16",), "dataset.image_size"),
    ],
)
def test_impossible_splits_are_told(compose, overrides, message):
    """A split that cannot be made is answered with the setting, its value and what to do."""
    with pytest.raises(SettingError) as error:
        split(compose, *overrides)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("root", ["cpu", "cuda", None])
def test_memory_is_pinned_for_a_gpu_that_trains(compose, monkeypatch, root):
    """Not where there is a GPU but the trainer is on the CPU, nor without a trainer."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    data = split(compose)
    if root is not None:
        strategy = SimpleNamespace(root_device=torch.device(root))
        data.trainer = SimpleNamespace(strategy=strategy, world_size=1, global_rank=0)
    assert data.val_dataloader().pin_memory is (root == "cuda")


def test_constants_are_moved_to_a_device_once(compose, monkeypatch):
    """Mean and deviation are not copied with every batch: each copy would wait for the device."""
    data = split(compose)
    copies, to = [], torch.Tensor.to

    def counted(x, device, *rest):
        copies.extend([device] if isinstance(device, torch.device) else [])
        return to(x, device, *rest)

    monkeypatch.setattr(torch.Tensor, "to", counted)
    for _ in range(3):
        x = torch.zeros(2, 1, 8, 8, dtype=torch.uint8, device="meta")
        data.on_after_batch_transfer((x, torch.zeros(2)), 0)
    assert len(copies) == 2
