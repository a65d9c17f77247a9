"""Checkpoints of a run, from which it goes on exactly, in whatever folder."""

import io
from math import isnan
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from saformer.checkpoint import LAST, PREVIOUS
from saformer.files import write_whole


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints with `write_whole`.

    Lightning's own writes them into the system's temporary folder, from where they are copied if
    that is another disk: not at once. A new `last.ckpt` leaves the one before as `previous.ckpt`,
    to go on from should the new one be damaged.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        content = io.BytesIO()
        torch.save(checkpoint, content)
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        replaced = path.with_name(PREVIOUS) if path.name == LAST else None
        write_whole(path, content.getbuffer(), replaced)


def best_checkpoint(trainer: pl.Trainer) -> ModelCheckpoint | None:
    """Which checkpoint of a run is its best: the first that watches a metric, or else the first."""
    kept = [one for one in trainer.checkpoint_callbacks if isinstance(one, ModelCheckpoint)]
    return next((one for one in kept if one.monitor is not None), kept[0] if kept else None)


def as_good(now: float, before: float, mode: str) -> bool:
    """Whether a later epoch takes the place of the best before it, by the metric that is watched.

    Of equal epochs the later one is better trained; no number is as bad as can be.

    Args:
        now: The metric of the later epoch.
        before: Of the best so far.
        mode: max or min.
    """
    worst = float("-inf") if mode == "max" else float("inf")
    now, before = (worst if isnan(one) else one for one in (now, before))
    return now >= before if mode == "max" else now <= before


class RunCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, always at the end of an epoch; a resumed run keeps its best.

    Of epochs that are equally good it keeps the latest.

    In the middle of an epoch, where Lightning saves when not every epoch is validated, a checkpoint
    holds neither the place in the data nor the metrics so far. Lightning also forgets the best
    score when the folder is another than before, and a run resumed there would test the best of
    its last epochs alone: here the best file is copied along.

    Args:
        options: Arguments of ModelCheckpoint.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, save_on_train_epoch_end=True)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        every = trainer.check_val_every_n_epoch or 1
        validated = (trainer.current_epoch + 1) % every == 0
        if self.monitor is None or validated:  # else its value is an old one
            super().on_train_epoch_end(trainer, pl_module)

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        if current is None or len(self.best_k_models) < self.save_top_k or self.save_top_k == -1:
            return super().check_monitor_top_k(trainer, current)
        before = self.best_k_models[self.kth_best_model_path]
        better = as_good(float(current), float(before), self.mode)
        return trainer.strategy.reduce_boolean_decision(better)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        before = Path(state_dict["best_model_path"])
        here = Path(self.dirpath or "") / before.name
        moved = here != before
        if not (before.is_file() or here.is_file()) or (moved and self.monitor is None):
            return  # the checkpoint came without the best, which begins anew
        if moved:
            _copy_unless_there(before, here)
            state_dict = state_dict | {
                "dirpath": self.dirpath,
                "best_model_path": str(here),
                "kth_best_model_path": str(here),
                "best_k_models": {str(here): state_dict["best_model_score"]},
            }
        super().load_state_dict(state_dict)


@rank_zero_only
def _copy_unless_there(source: Path, target: Path) -> None:
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, memoryview(source.read_bytes()))
