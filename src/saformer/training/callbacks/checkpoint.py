"""Checkpoints of a run, from which it goes on exactly, in whatever folder."""

import io
import logging
import shutil
from math import isnan
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn

from saformer.checkpoint import LAST, OWN, PREVIOUS, load_checkpoint
from saformer.errors import CheckpointError, UserError
from saformer.files import set_aside, write_whole

log = logging.getLogger(__name__)


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

    Of epochs that are equally good it keeps the latest (with `save_top_k` above 1 Lightning tests
    the earliest of those that it keeps).

    In the middle of an epoch, where Lightning saves when not every epoch is validated, a checkpoint
    holds neither the place in the data nor the metrics so far. Lightning also forgets the best
    score when the folder is another than before, and a run resumed there would test the best of
    its last epochs alone: here the best file is copied along, if it is still the one that the
    checkpoint speaks of. Names count epochs from 1, as results do, and carry no `=`.

    Args:
        options: Arguments of ModelCheckpoint, as `saformer.config.checkpoint_files` lets them pass.
    """

    def __init__(self, **options: Any) -> None:
        fixed = {"save_on_train_epoch_end": True, "auto_insert_metric_name": False}
        super().__init__(**options | fixed)
        self._beside = Path()

    def format_checkpoint_name(self, metrics: dict[str, Tensor], *args: Any, **options: Any) -> str:
        counted = metrics | {"epoch": metrics["epoch"] + 1}
        return super().format_checkpoint_name(counted, *args, **options)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        every = trainer.check_val_every_n_epoch or 1
        validated = (trainer.current_epoch + 1) % every == 0
        if self.monitor is None or validated:  # else its value is an old one
            super().on_train_epoch_end(trainer, pl_module)

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        """Whether a score is among those to keep; of equally good epochs the later one is."""
        if current is None or len(self.best_k_models) < self.save_top_k or self.save_top_k == -1:
            return super().check_monitor_top_k(trainer, current)
        before = self.best_k_models[self.kth_best_model_path]
        better = as_good(float(current), float(before), self.mode)
        return trainer.strategy.reduce_boolean_decision(better)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Begin the best anew where its file is none that the checkpoint speaks of.

        It is another one where training goes on from an epoch before the best of an earlier start,
        or by another monitor. What an earlier start named the best is put aside.
        """
        self._beside = Path(str(trainer.ckpt_path)).parent
        if trainer.state.fn is not TrainerFn.FITTING or self.monitor is None:
            return
        state = checkpoint["callbacks"].get(self.state_key)
        # The first process decides, since the file that it looks at may then have another name.
        kept = trainer.is_global_zero and state is not None and self._kept(state, checkpoint)
        if trainer.strategy.broadcast(kept):
            return
        checkpoint["callbacks"].pop(self.state_key, None)
        if trainer.is_global_zero:
            since = checkpoint["epoch"] + 2
            log.warning("the best epoch by %s is chosen from epoch %d on", self.monitor, since)
            if state is None or Path(str(trainer.ckpt_path)).name not in OWN:
                set_aside(Path(self.dirpath or "") / f"{self.filename}{self.FILE_EXTENSION}")

    def _kept(self, state: dict[str, Any], checkpoint: dict[str, Any]) -> bool:
        """Whether the best that a checkpoint speaks of is there; its test refuses a damaged one."""
        found, here = self._best_files(state)
        try:
            best = load_checkpoint(found) if state["best_model_path"] else None
        except CheckpointError:
            return found == here and found.is_file()
        if best is None:
            return True
        score = best.get("callbacks", {}).get(self.state_key, {}).get("best_model_score")
        older = best.get("global_step", 0) <= checkpoint["global_step"]
        return bool(older and score == state["best_model_score"])

    def _best_files(self, state: dict[str, Any]) -> tuple[Path, Path]:
        """Where the file of the best is, and where it belongs.

        It is here, or beside the checkpoint that was named: the folder that this tells, which may
        be a stranger's, is never looked into.
        """
        name = Path(str(state["best_model_path"])).name
        here = Path(self.dirpath or "") / name
        return here if here.is_file() else self._beside / name, here

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        found, here = self._best_files(state_dict)
        moved = found != here
        if not found.is_file() or (moved and self.monitor is None):
            return  # there is none, or it is but the newest
        if moved:
            _copy_unless_there(found, here)
            score = state_dict["best_model_score"]
            state_dict = state_dict | {
                "best_model_path": str(here),
                "kth_best_model_path": str(here),
                "best_k_models": {str(here): score},
            }
        super().load_state_dict(in_folder(state_dict, self.dirpath or ""))


def in_folder(state: dict[str, Any], folder: str | Path) -> dict[str, Any]:
    """The state of a ModelCheckpoint, whose files are all in one folder, whatever it says itself.

    Lightning reads, deletes and uploads what its paths name.
    """

    def here(path: Any) -> str:
        name = Path(str(path)).name
        return str(Path(folder) / name) if name else ""

    named = ("best_model_path", "kth_best_model_path", "last_model_path")
    best = state.get("best_k_models", {})
    return (
        state
        | {name: here(state[name]) for name in named if name in state}
        | {"dirpath": folder, "best_k_models": {here(path): score for path, score in best.items()}}
    )


@rank_zero_only
def _copy_unless_there(source: Path, target: Path) -> None:
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, memoryview(source.read_bytes()), mode=source.stat().st_mode & 0o777)


def require_disk(run_dir: Path, module: nn.Module) -> None:
    """Refuse to start a training whose checkpoints cannot be kept."""
    folder = next(parent for parent in (run_dir, *run_dir.parents) if parent.exists())
    one = 3 * sum(p.numel() * p.element_size() for p in module.parameters())  # weights, two moments
    kept = sum(path.exists() for path in map((run_dir / "checkpoints").joinpath, OWN))
    needed = (len(OWN) + 1 - kept) * one + 2**24  # and the next one while it is written; logs
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder} has {free / 2**20:.0f} MiB free, this run needs about "
            f"{needed / 2**20:.0f} MiB: free some, or choose another folder with hydra.run.dir=..."
        )
