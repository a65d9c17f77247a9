"""Show the progress of a run: a bar on a terminal, otherwise one plain line per epoch."""

import sys

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, ProgressBar, RichProgressBar

from saformer.training.callbacks.energy import silenced
from saformer.training.callbacks.meter import EpochMeter


class EpochLine(EpochMeter, ProgressBar):
    """Prints one line for each epoch, for logs of clusters and pipes.

    It is a `ProgressBar`, so that Lightning does not add its own progress bar.
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True

    def enable(self) -> None:
        self._enabled = True

    def disable(self) -> None:
        """Lightning calls this on all ranks except the first, and while it tunes a batch size."""
        self._enabled = False

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = self.read(trainer)
        words = silenced(trainer, pl_module) if self._validated else []
        if self._enabled:
            print("  ".join([self._line(trainer, metrics), *words]), flush=True)

    def _line(self, trainer: pl.Trainer, metrics: dict[str, float]) -> str:
        parts = [f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"]
        for label, name in (("loss", "train/loss"), ("val loss", "val/loss")):
            if name in metrics:
                parts.append(f"{label} {metrics[name]:.3f}")
        if "val/top1" in metrics:
            parts.append(f"val acc {100 * metrics['val/top1']:.2f} %")
        if "energy/total_mJ" in metrics:
            parts.append(f"energy {metrics['energy/total_mJ']:.3g} mJ")
        parts += [f"{self.samples / self.seconds:.0f} img/s", f"lr {self.lr:.1e}"]
        return "  ".join(parts)


def progress_bar() -> Callback:
    """A live bar on a terminal, otherwise lines."""
    return RichProgressBar(leave=True) if sys.stdout.isatty() else EpochLine()
