"""Checkpoints of a run, from which it can be resumed exactly, even in another folder."""

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

    Lightning writes a checkpoint to the system's temporary folder first. If that is on another
    disk, the file is then copied, which a crash can interrupt. When a new `last.ckpt` is written,
    the old one becomes `previous.ckpt`, so that a run can resume from it if the new one is damaged.
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
    """The callback that holds the best checkpoint: the first with a monitor, or else the first."""
    savers = [saver for saver in trainer.checkpoint_callbacks if isinstance(saver, ModelCheckpoint)]
    return next(
        (saver for saver in savers if saver.monitor is not None), savers[0] if savers else None
    )


def as_good(now: float, before: float, mode: str) -> bool:
    """Whether a later epoch replaces the best epoch before it, by the monitored metric.

    If both are equal, the later epoch wins, because it is trained longer. NaN is the worst value.

    Args:
        now: Metric of the later epoch.
        before: Metric of the best epoch so far.
        mode: max or min.
    """
    worst = float("-inf") if mode == "max" else float("inf")
    now, before = (worst if isnan(value) else value for value in (now, before))
    return now >= before if mode == "max" else now <= before


class RunCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, but it saves only at epoch ends and keeps its best on a resume.

    Of epochs that are equally good, it keeps the latest. (With `save_top_k` above 1, Lightning
    tests the earliest of the epochs that it keeps.)

    If not every epoch is validated, Lightning saves in the middle of an epoch. Such a checkpoint
    contains neither the position in the data nor the metrics so far, so this class saves only at
    the end of an epoch. Also, Lightning forgets the best score if a run is resumed in another
    folder, and would then test the best of the later epochs only. Here the best file is copied to
    the new folder, if it is still the file that the checkpoint refers to. File names count epochs
    from 1, as results do, and contain no `=`.

    Args:
        options: Arguments of ModelCheckpoint that `saformer.config.checkpoint_files` allows.
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
        if self.monitor is None or validated:  # without a validation its value is old
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
        """Forget the best score if the best file is not the one that the checkpoint refers to.

        The file differs if training resumes from an epoch before the best epoch of an earlier
        start, or with another monitor. The best file of the earlier start is then renamed.
        """
        self._beside = Path(str(trainer.ckpt_path)).parent
        if trainer.state.fn is not TrainerFn.FITTING or self.monitor is None:
            return
        state = checkpoint["callbacks"].get(self.state_key)
        # Only the first process decides, because it may rename the file that the others look for.
        kept = trainer.is_global_zero and state is not None and self._kept(state, checkpoint)
        if trainer.strategy.broadcast(kept):
            return
        checkpoint["callbacks"].pop(self.state_key, None)
        if trainer.is_global_zero:
            since = checkpoint["epoch"] + 2
            log.warning(
                "the best epoch by %s is chosen among the epochs from %d on", self.monitor, since
            )
            if state is None or Path(str(trainer.ckpt_path)).name not in OWN:
                set_aside(Path(self.dirpath or "") / f"{self.filename}{self.FILE_EXTENSION}")

    def _kept(self, state: dict[str, Any], checkpoint: dict[str, Any]) -> bool:
        """Whether the best file that a checkpoint refers to exists.

        A damaged file in our own folder counts as existing; the test will refuse it.
        """
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
        """Where the best file is, and where it belongs.

        We look in our own folder and in the folder of the resumed checkpoint. We never look in the
        folder that is written in the checkpoint, because the checkpoint may come from a stranger.
        """
        name = Path(str(state["best_model_path"])).name
        here = Path(self.dirpath or "") / name
        return here if here.is_file() else self._beside / name, here

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        found, here = self._best_files(state_dict)
        moved = found != here
        if not found.is_file() or (moved and self.monitor is None):
            return  # there is no such file, or it is only last.ckpt
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
    """Move all paths in the state of a ModelCheckpoint to one folder.

    Lightning reads, deletes and uploads the files at these paths, so they must not lead elsewhere.
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
    """Refuse to start a training if the disk has no room for its checkpoints."""
    folder = next(parent for parent in (run_dir, *run_dir.parents) if parent.exists())
    # Bytes of a checkpoint: the weights and two moments of the optimizer.
    size = 3 * sum(p.numel() * p.element_size() for p in module.parameters())
    existing = sum(path.exists() for path in map((run_dir / "checkpoints").joinpath, OWN))
    # One more checkpoint while it is being written, and 16 MiB of logs.
    needed = (len(OWN) + 1 - existing) * size + 2**24
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder} has {free / 2**20:.0f} MiB free, this run needs about "
            f"{needed / 2**20:.0f} MiB: free some, or choose another folder with hydra.run.dir=..."
        )
