"""What every report on an epoch needs: its metrics, its learning rate, how fast it trained."""

import sys
import time
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch.optim import Optimizer

from saformer.training.callbacks.energy import counted


def compile_seconds() -> float:
    """What torch.compile has taken so far in this process."""
    if "torch._dynamo" not in sys.modules:
        return 0.0
    from torch._dynamo.utils import calculate_time_spent

    spent: Callable[[], dict[str, float]] = calculate_time_spent
    return spent().get("total_wall_time", 0.0)


class EpochMeter(Callback):
    """Counts the samples of a training epoch and the seconds they took, validation left out."""

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
        # At the end of the epoch the schedule has already moved on to the next one.
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

        To be called in `on_train_epoch_end`, which Lightning runs after the validation of the same
        epoch, and on every rank: the mean over an epoch may need all of them.
        """
        self._pause()
        # Lightning keeps the values of the last validation; in an epoch without one they are old.
        groups = ("train/", "val/") if self._validated else ("train/",)
        metrics = trainer.callback_metrics.items()
        found = {name: float(value) for name, value in metrics if name.startswith(groups)}
        return found | counted(trainer) if self._validated else found
