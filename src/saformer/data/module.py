"""The LightningDataModule: from a reader's arrays to batches that a model takes.

Batches leave the loader as uint8, [B, C, H, W] for images and [B, T, C, H, W] for event frames,
with class numbers [B]. Everything else happens on the device: scaling, augmentation and mixing
(training only), normalisation.
"""

from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from saformer.data.augment import augment, erase, mix
from saformer.data.readers import ImageSet, read
from saformer.data.settings import AugmentConfig, DatasetConfig
from saformer.data.splits import digest, stratified
from saformer.errors import require

Batch = tuple[Tensor, Tensor]


class ArraySet(Dataset[Batch]):
    """Chosen items of an array in memory; a whole batch is one indexing operation.

    Args:
        x: uint8 [N, ...].
        y: Class numbers [N].
        indices: Items that belong to this set, in the order of an evaluation.
    """

    def __init__(self, x: Tensor, y: Tensor, indices: Tensor) -> None:
        self.x, self.y, self.indices = x, y, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Batch:
        item = self.indices[index]
        return self.x[item], self.y[item]

    def __getitems__(self, indices: list[int]) -> Batch:
        items = self.indices[indices]
        return self.x[items], self.y[items]


class SpikingDataModule(pl.LightningDataModule):
    """Training, validation and test batches of one dataset.

    The validation set is held out of the training images; the test set is used by `test` alone.
    What is drawn at random is a function of seed, epoch and batch, never of a generator's past, so
    a resumed run draws what the uninterrupted one does.

    Args:
        dataset: What is read, how it is split and batched.
        augment: Training augmentation.
        seed: Seed of shuffling and augmentation.
    """

    def __init__(self, dataset: DatasetConfig, augment: AugmentConfig, seed: int) -> None:
        super().__init__()
        self.dataset, self.augment, self.seed = dataset, augment, seed
        shape = (-1, 1, 1)  # broadcasts over [B, C, H, W] and [B, T, C, H, W]
        self._mean = torch.tensor(dataset.mean).view(shape)
        self._std = torch.tensor(dataset.std).view(shape)
        self._sets: dict[str, ArraySet] = {}

    def setup(self, stage: str | None = None) -> None:
        """Read and split, once; later calls do nothing.

        Raises:
            UserError: The data cannot be read, or the split cannot be made.
        """
        if self._sets:
            return
        images = read(self.dataset)
        train, val = self._split(images)
        self._sets = {
            "train": ArraySet(images.train_x, images.train_y, train),
            "val": ArraySet(images.train_x, images.train_y, val),
            "test": ArraySet(images.test_x, images.test_y, torch.arange(len(images.test_y))),
        }

    def describe(self) -> dict[str, Any]:
        """Sizes and digests of the three sets: which images each of them holds."""
        return {
            "dataset": self.dataset.name,
            **{
                name: {"size": len(part), "digest": digest(part.indices.numpy())}
                for name, part in self._sets.items()
            },
        }

    def train_dataloader(self) -> DataLoader[Batch]:
        part = self._sets["train"]
        trainer = self.trainer
        # torch's own sampler also for one process: its order depends on seed and epoch alone.
        sampler: DistributedSampler[Batch] = DistributedSampler(
            part,
            num_replicas=trainer.world_size if trainer else 1,
            rank=trainer.global_rank if trainer else 0,
            seed=self.seed,
        )
        return self._loader(part, self.dataset.batch_size, sampler)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self._sets["val"], self.dataset.eval_batch_size)

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self._sets["test"], self.dataset.eval_batch_size)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """uint8 to normalised floats on the device of the batch; in training also augmented."""
        x, y = batch
        x = x.float().div_(255)
        mean, std = self._mean.to(x.device), self._std.to(x.device)
        if self.trainer is None or not self.trainer.training:
            return (x - mean) / std, y
        draws = self._generator(x.device)
        x = (augment(x, self.augment, draws) - mean) / std
        x = erase(x, self.augment, draws)  # after normalisation, so that it erases to the mean
        return mix(x, y, self.dataset.num_classes, self.augment, draws)

    def _split(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        """Item numbers of the training and of the validation set."""
        config, labels = self.dataset, images.train_y.numpy()
        chosen = np.arange(len(labels))
        subset = config.train_subset
        if subset is not None:
            rule = f"be at most {len(labels)}, the number of training images"
            require(subset <= len(labels), "dataset.train_subset", rule, subset)
        if subset is not None and subset < len(labels):
            chosen, _ = stratified(labels, subset, config.split_seed, "dataset.train_subset")
        count = round(config.val_fraction * len(chosen))
        val, train = stratified(labels[chosen], count, config.split_seed, "dataset.val_fraction")
        # In a fixed random order, so that the first batches alone stand for the whole set.
        val = np.random.default_rng(config.split_seed).permutation(val)
        return torch.from_numpy(chosen[train]), torch.from_numpy(chosen[val])

    def _loader(
        self, part: ArraySet, batch_size: int, sampler: DistributedSampler[Batch] | None = None
    ) -> DataLoader[Batch]:
        return DataLoader(
            part,
            batch_size,
            sampler=sampler,
            num_workers=self.dataset.num_workers,
            collate_fn=_as_it_is,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.dataset.num_workers > 0,
        )

    def _generator(self, device: torch.device) -> torch.Generator:
        """Random numbers of this batch."""
        trainer = self.trainer
        assert trainer is not None
        batch = trainer.fit_loop.epoch_loop.batch_idx + 1  # it still names the one before
        key = (self.seed, trainer.global_rank, trainer.current_epoch, batch)
        mixed = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
        return torch.Generator(device).manual_seed(int(mixed) >> 1)  # seeds are signed


def _as_it_is(batch: Any) -> Any:
    """The set hands out whole batches already."""
    return batch
