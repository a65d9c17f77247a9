"""Checkpoints of a run, from which it goes on exactly, in whatever folder."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only

from saformer.provenance import write_whole


class RunCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, always at the end of an epoch; a resumed run keeps its best.

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
