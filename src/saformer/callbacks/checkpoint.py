"""Checkpoints of a run, which stay complete when the run goes on in another folder."""

import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only


class RunCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, except that a resumed run keeps its best model.

    Lightning forgets the best score when the folder is another than before, and a run resumed
    there would test the best of its last epochs alone. Here the best file is copied along.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        before = Path(state_dict["best_model_path"])
        here = Path(self.dirpath or "") / before.name
        if state_dict["best_model_path"] and here != before:
            if not (before.is_file() or here.is_file()):
                return  # the checkpoint came alone, and the best begins anew
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
        shutil.copy2(source, target)
