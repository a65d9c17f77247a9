"""Exponential moving average of the weights."""

from functools import partial
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from saformer.errors import require


class WeightAverage(EMAWeightAveraging):
    """Lightning's EMAWeightAveraging with changes that make the average useful from the start.

    - The decay warms up: it is min(decay, (1 + n) / (10 + n)) after n updates, so that the first
      weights do not dominate the average of a short training.
    - Buffers are copied, because the running statistics of BatchNorm are already an average.
    - Before the first update there is no average. Until then, validation, checkpoints and test use
      the trained weights.
    - A test right after the training uses the average, as any later test does. A checkpoint holds
      the average, and also the trained weights for a resume. Lightning would test the latter.

    Args:
        decay: Share of the old average that an update keeps, after the warm-up; 0 to 1.
        update_every_n_steps: Optimizer steps between two updates.
        update_starting_at_step: First step, counted from 0, whose weights are averaged.
        update_starting_at_epoch: First epoch, counted from 0, whose weights are averaged.
        device: Device of the average; by default the device of the network.

    Raises:
        SettingError: A value is out of its range.
    """

    def __init__(
        self,
        decay: float = 0.999,
        update_every_n_steps: int = 1,
        update_starting_at_step: int | None = None,
        update_starting_at_epoch: int | None = None,
        device: str | None = None,
    ) -> None:
        require(0 <= decay <= 1, "callbacks.ema.decay", "be 0 to 1", decay)
        steps = "callbacks.ema.update_every_n_steps"
        require(update_every_n_steps > 0, steps, "be at least 1", update_every_n_steps)
        super().__init__(
            device=device,
            use_buffers=False,  # with False, Lightning copies buffers instead of averaging them
            decay=decay,
            update_every_n_steps=update_every_n_steps,
            update_starting_at_step=update_starting_at_step,
        )
        self._kwargs["avg_fn"] = partial(_average, decay)
        self._first_epoch = update_starting_at_epoch or 0
        self._epoch = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # Lightning would take the device of the network, which is moved to its device only later.
        self._device = self._device or trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._epoch = trainer.current_epoch

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        # We check the first epoch here, because Lightning would update from the first step anyway.
        started = self._epoch >= self._first_epoch
        return started and step_idx is not None and super().should_update(step_idx)

    def _begun(self) -> bool:
        """Whether the average has been updated at least once."""
        average = self._average_model
        return average is not None and bool(average.n_averaged)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._begun():
            super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._begun():
            super().on_validation_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._begun():
            super().on_train_end(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        trained = checkpoint["state_dict"]
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if not self._begun():
            checkpoint["state_dict"] = trained

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.state.fn is TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)


def _average(decay: float, average: Tensor, weights: Tensor, updates: Tensor) -> Tensor:
    """The average after one more update; `updates` is the number of earlier updates."""
    share = ((1 + updates) / (10 + updates)).clamp(max=decay)  # a tensor, so no wait for the GPU
    return average + (1 - share) * (weights - average)
