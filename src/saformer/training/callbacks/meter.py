"""Measure an epoch for all reports: its metrics, its learning rate and its training speed."""

import sys
import time
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch.optim import Optimizer

from saformer.training.callbacks.energy import counted


def compile_seconds() -> float:
    """Seconds that torch.compile has taken so far in this process."""
    if "torch._dynamo" not in sys.modules:
        return 0.0
    from torch._dynamo.utils import calculate_time_spent

    spent: Callable[[], dict[str, float]] = calculate_time_spent
    return spent().get("total_wall_time", 0.0)


class EpochMeter(Callback):
    """Counts the samples of a training epoch and its seconds, without those of validation."""

    def __init__(self) -> None:
        super().__init__()
        self.lr = 0.0
        self._restart()

    def _restart(self) -> None:
        self.samples = 0
        self.seconds = 0.0
        self._validated = False
        self._since = time.perf_counter()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # A fit that resumes in the middle of an epoch has no `on_train_epoch_start`.
        self._restart()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._restart()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self.samples += len(batch[0]) * trainer.world_size

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        # Read the rate here: at the end of the epoch, it is already that of the next epoch.
        self.lr = float(optimizer.param_groups[0]["lr"])

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._pause()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validated = True
        self._since = time.perf_counter()

    def _pause(self) -> None:
        now = time.perf_counter()
        self.seconds += now - self._since
        self._since = now

    def read(self, trainer: pl.Trainer) -> dict[str, float]:
        """Stop the clock and return the epoch's `train/*`, `val/*` and energy metrics.

        Call it in `on_train_epoch_end`, which Lightning runs after the validation of the same
        epoch. Call it on every rank, because the mean over an epoch may need all ranks.
        """
        self._pause()
        # In an epoch without validation, Lightning still holds the values of an earlier epoch.
        groups = ("train/", "val/") if self._validated else ("train/",)
        metrics = trainer.callback_metrics.items()
        logged = {name: float(value) for name, value in metrics if name.startswith(groups)}
        return logged | counted(trainer) if self._validated else logged
