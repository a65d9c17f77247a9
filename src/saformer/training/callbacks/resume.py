"""Restore what Lightning's checkpoints do not contain but an exact resume needs."""

import signal
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn

from saformer.generators import begin
from saformer.training.callbacks.checkpoint import RunCheckpoint, in_folder


class ExactResume(Callback):
    """Makes every epoch depend only on the checkpoint before it.

    It seeds the global generators of Python, NumPy and torch at the start of every epoch from seed,
    epoch and rank. In our training, only rate coding uses these generators; layers or callbacks of
    the user, such as dropout, may use them too. A training that was stopped early stays stopped,
    unless the user has increased its patience.

    Args:
        seed: Seed of the run.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self._on_sigterm = signal.getsignal(signal.SIGTERM)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        for saver in trainer.checkpoint_callbacks:
            if isinstance(saver, ModelCheckpoint) and not isinstance(saver, RunCheckpoint):
                _keep_own_files(saver, checkpoint["callbacks"])
        if trainer.state.fn is not TrainerFn.FITTING:
            return
        for callback in trainer.early_stopping_callbacks:
            state = checkpoint["callbacks"].get(callback.state_key)
            if not state:
                continue
            patience, state["patience"] = state["patience"], callback.patience  # from the settings
            more = state["wait_count"] == patience < callback.patience
            stopped = state["stopping_reason"] and state["stopped_epoch"] == checkpoint["epoch"]
            if stopped and not more:
                trainer.should_stop = True  # checkpoints do not contain this flag

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._take_sigterm()

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._take_sigterm()

    def _take_sigterm(self) -> None:
        # Restore our signal handler. Lightning has replaced it by one that communicates with the
        # other ranks; it would wait forever if they are at another place in the program.
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # Seed at the first batch and not at the start of the epoch: in between, the loader draws in
        # an uninterrupted run, but not in a resumed one.
        if batch_idx == 0:
            begin(self.seed, trainer.current_epoch, trainer.global_rank)


def _keep_own_files(callback: ModelCheckpoint, states: dict[str, Any]) -> None:
    """Let Lightning's own ModelCheckpoint keep its best file only if that is in its folder."""
    state = states.pop(callback.state_key, None)
    if state is not None and callback.dirpath is not None:
        local = in_folder(state, callback.dirpath)
        if Path(local["best_model_path"]).is_file():
            states[callback.state_key] = local
