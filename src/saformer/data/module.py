"""The LightningDataModule: it turns a reader's arrays into batches for the model.

The loader returns batches of uint8, [B, C, H, W] for images and [B, T, C, H, W] for event frames,
with class numbers [B]. All other steps run on the device: scaling, augmentation and mixing
(training only), normalisation.
"""

from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from saformer.data.augment import augment, crop_flip, erase, mix
from saformer.data.image_files import ImageFiles
from saformer.data.prepare import to_float
from saformer.data.readers import read
from saformer.data.sets import ArraySet, Batch, EpochSampler, ImageSet, ShareSampler
from saformer.data.settings import AugmentConfig, DatasetConfig
from saformer.data.source import Items, Source
from saformer.data.splits import digest, digest_of, stratified
from saformer.errors import CheckpointError, DataError, require


class SpikingDataModule(pl.LightningDataModule):
    """Training, validation and test batches of one dataset.

    The validation set is a part of the training images; only `test` uses the test set. Every random
    draw is a function of seed, epoch and batch, and never depends on earlier draws. So a resumed
    run draws the same numbers as an uninterrupted one.

    Args:
        dataset: Which dataset is read, and how it is split and batched.
        augment: Training augmentation.
        seed: Seed of shuffling and augmentation.
        timesteps: Frames T that a recording of events is cut into.
    """

    def __init__(
        self, dataset: DatasetConfig, augment: AugmentConfig, seed: int, timesteps: int
    ) -> None:
        super().__init__()
        self.dataset, self.augment, self.seed, self.timesteps = dataset, augment, seed, timesteps
        shape = (-1, 1, 1)  # broadcasts over [B, C, H, W] and [B, T, C, H, W]
        self._mean = torch.tensor(dataset.mean).view(shape)
        self._std = torch.tensor(dataset.std).view(shape)
        self._source: Source | None = None
        self._sets: dict[str, ArraySet | ImageSet] = {}
        self._described: dict[str, Any] = {}
        self._resident: Tensor | None = None
        self._resumed = 0  # epochs that were done before a resume

    def setup(self, stage: str | None = None) -> None:
        """Read and split the data at the first call; later calls do nothing.

        Raises:
            UserError: The data cannot be read, the split is impossible, or a setting does not fit
                this kind of data.
        """
        if self._source is not None:
            return
        source = read(self.dataset, self.timesteps)
        train, val = self._split(source)
        parts = {"train": train, "val": val, "test": source.test}
        labels = source.y.numpy()
        self._sets = {name: self._set(source, items, name) for name, items in parts.items()}
        self._described = {
            "dataset": self.dataset.name,
            "split": self.dataset.split.value,
            "digest_of": source.digest_of,
            **{
                name: {"size": len(items), "digest": digest_of(items, labels, source.identify)}
                for name, items in parts.items()
            },
            **source.facts,
        }
        self._source = source

    def describe(self) -> dict[str, Any]:
        """Sizes and digests of the three sets; a digest identifies the items of a set."""
        return self._described

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint stores about the data: the split, its digests, and the epochs done."""
        return self.describe() | {"epochs": self._epochs_done()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the item order of the next epoch, if the items are the same as before.

        Raises:
            CheckpointError: A set holds other items than when the checkpoint was written.
        """
        self.require_same(state_dict, list(self._sets))
        self._resumed = state_dict.get("epochs", 0)

    def require_same(self, state_dict: dict[str, Any], sets: list[str]) -> None:
        """Check that sets hold the items that a checkpoint was trained with.

        Args:
            state_dict: What the checkpoint stores about the data.
            sets: Names of the sets to check.

        Raises:
            CheckpointError: One of them holds other items.
        """
        now = self.describe() if "digest_of" in state_dict else self._described_by_names_alone()
        for name in sets:
            before = state_dict[name]
            if before != now[name]:
                raise CheckpointError(
                    f"the checkpoint was trained with dataset.split={state_dict['split']}, whose "
                    f"{name} set has {before['size']} items and digest {before['digest']}; now it "
                    f"has {now[name]['size']} and {now[name]['digest']}: restore the files and the "
                    "settings of dataset"
                )

    def _described_by_names_alone(self) -> dict[str, Any]:
        """Describe sets as older checkpoints do: digests are of names, or else of item numbers."""
        assert self._source is not None
        names = self._source.names
        return {
            name: {
                "size": len(part),
                "digest": digest([names[i] if names else str(i) for i in part.items.tolist()]),
            }
            for name, part in self._sets.items()
        }

    def train_dataloader(self) -> DataLoader[Batch]:
        sampler = EpochSampler(self._sets["train"], *self._ranks(), seed=self.seed)
        # Lightning sets the epoch too, but only after workers have requested their first items.
        sampler.set_epoch(max(self._resumed, self._epochs_done()))
        return self._loader("train", self.dataset.batch_size, sampler)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._eval_loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._eval_loader("test")

    def on_after_batch_transfer(self, batch: Batch | DataError, dataloader_idx: int) -> Batch:
        """Turn uint8 into normalised floats on the batch's device; in training also augment them.

        Raises:
            DataError: A worker could not decode a file, and sent this error instead of the batch.
        """
        if isinstance(batch, DataError):
            raise batch
        prepared = self._prepare(*batch)
        if self.trainer is None:
            return prepared
        # Lightning casts too, but before this hook, when the images are still uint8.
        cast: Batch = self.trainer.precision_plugin.convert_input(prepared)
        return cast

    def _prepare(self, x: Tensor, y: Tensor) -> Batch:
        if self.dataset.device_resident:
            x = self._on_device(x.device).index_select(0, x)
        if self._mean.device != x.device:  # only once, because a copy to a GPU waits for the GPU
            self._mean, self._std = self._mean.to(x.device), self._std.to(x.device)
        mean, std = self._mean, self._std
        if self.trainer is None or not self.trainer.training:
            return to_float(x, self.dataset).sub_(mean).div_(std), y
        draws = self._generator(x.device)
        x = to_float(crop_flip(x, self.augment, draws), self.dataset)
        x = (augment(x, self.augment, draws) - mean).div_(std)
        x = erase(x, self.augment, draws)  # after normalisation, so that erased pixels are the mean
        off = self.augment.mixup_off_epoch
        if off is not None and self.trainer.current_epoch >= off:
            return x, y
        return mix(x, y, self.dataset.num_classes, self.augment, draws)

    def _on_device(self, device: torch.device) -> Tensor:
        """The whole dataset on the device; the first batch moves it there."""
        if self._resident is None or self._resident.device != device:
            assert self._source is not None and isinstance(self._source.x, Tensor)
            self._resident = self._source.x.to(device)
        return self._resident

    def _set(self, source: Source, items: Items, name: str) -> ArraySet | ImageSet:
        """Make the torch dataset of one of the three sets."""
        config, x = self.dataset, source.x
        area = self.augment.resized_crop
        if isinstance(x, ImageFiles):
            rule = f"be false for {config.name}, whose images are decoded batch by batch"
            require(not config.device_resident, "dataset.device_resident", rule, "true")
            crop = (area[0], area[1]) if area is not None and name == "train" else None
            return ImageSet(x, source.y, items, self.seed, crop)
        rule = f"be {{}} for {config.name}, whose images are not decoded batch by batch"
        require(area is None, "augment.resized_crop", rule.format("null"), area)
        require(config.crop_pct == 1, "dataset.crop_pct", rule.format(1), config.crop_pct)
        return ArraySet(x, source.y, items, config.device_resident)

    def _split(self, source: Source) -> tuple[Items, Items]:
        """Numbers of the items to train on and to validate on."""
        config, chosen = self.dataset, source.train
        labels = source.y.numpy()
        subset = config.train_subset
        if subset is not None:
            rule = f"be at most {len(chosen)}, the number of training images"
            require(subset <= len(chosen), "dataset.train_subset", rule, subset)
        if subset is not None and subset < len(chosen):
            picked, _ = stratified(
                labels[chosen], subset, config.split_seed, "dataset.train_subset"
            )
            chosen = chosen[picked]
        count = round(config.val_fraction * len(chosen))
        val, train = stratified(labels[chosen], count, config.split_seed, "dataset.val_fraction")
        # Shuffle once with a fixed seed, so that the first batches represent the whole set.
        val = np.random.default_rng(config.split_seed).permutation(val)
        return chosen[train], chosen[val]

    def _ranks(self) -> tuple[int, int]:
        """Number of processes that share a set, and the rank of this one."""
        trainer = self.trainer
        return (trainer.world_size, trainer.global_rank) if trainer else (1, 0)

    def _epochs_done(self) -> int:
        if self.trainer is None:
            return 0
        done: int = self.trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]
        return done

    def _eval_loader(self, name: str) -> DataLoader[Batch]:
        sampler = ShareSampler(self._sets[name], *self._ranks())
        return self._loader(name, self.dataset.eval_batch_size, sampler)

    def _loader(
        self, name: str, batch_size: int, sampler: EpochSampler | ShareSampler
    ) -> DataLoader[Batch]:
        return DataLoader(
            self._sets[name],
            batch_size,
            sampler=sampler,
            num_workers=self.dataset.num_workers,
            collate_fn=_as_it_is,
            pin_memory=self._is_for_cuda(),
            persistent_workers=self.dataset.num_workers > 0,
            # The loader draws a seed in each epoch; its own generator leaves the global one alone.
            generator=torch.Generator().manual_seed(self.seed),
        )

    def _is_for_cuda(self) -> bool:
        """Whether batches go to an NVIDIA GPU; a machine may have one that the run does not use."""
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    def _generator(self, device: torch.device) -> torch.Generator:
        """Generator of the random numbers of this batch."""
        trainer = self.trainer
        assert trainer is not None
        batch = trainer.fit_loop.epoch_loop.batch_idx + 1  # Lightning increases it after this hook
        key = (self.seed, trainer.global_rank, trainer.current_epoch, batch)
        mixed = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
        return torch.Generator(device).manual_seed(int(mixed) >> 1)  # torch seeds are signed


def _as_it_is(batch: Any) -> Any:
    """Return a batch unchanged, because the dataset already returns whole batches."""
    return batch
