"""What an exact resume needs beyond Lightning's checkpoints."""

import signal
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn

from saformer.generators import begin
from saformer.training.callbacks.checkpoint import RunCheckpoint, in_folder


class ExactResume(Callback):
    """Makes an epoch a function of the checkpoint before it.

    The global generators of Python, NumPy and torch begin every epoch anew, from seed, epoch and
    rank. Rate coding draws from them, and so may a layer or a callback of the user's, such as
    dropout; nothing else of our training does. A training that was stopped early stays stopped,
    unless it was given more patience.

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
        for kept in trainer.checkpoint_callbacks:
            if isinstance(kept, ModelCheckpoint) and not isinstance(kept, RunCheckpoint):
                _keep_own_files(kept, checkpoint["callbacks"])
        if trainer.state.fn is not TrainerFn.FITTING:
            return
        for callback in trainer.early_stopping_callbacks:
            state = checkpoint["callbacks"].get(callback.state_key)
            if not state:
                continue
            patience, state["patience"] = state["patience"], callback.patience  # as it was typed
            more = state["wait_count"] == patience < callback.patience
            stopped = state["stopping_reason"] and state["stopped_epoch"] == checkpoint["epoch"]
            if stopped and not more:
                trainer.should_stop = True  # which is in no checkpoint

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._take_sigterm()

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._take_sigterm()

    def _take_sigterm(self) -> None:
        # Lightning has put a handler before ours, which talks to the other ranks from wherever the
        # signal came, and waits for ever if they are elsewhere.
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # Not at the start of the epoch: then the loader still draws, but not in a resumed fit.
        if batch_idx == 0:
            begin(self.seed, trainer.current_epoch, trainer.global_rank)


def _keep_own_files(callback: ModelCheckpoint, states: dict[str, Any]) -> None:
    """Let a ModelCheckpoint of Lightning's go on with the best in its own folder, or begin anew."""
    state = states.pop(callback.state_key, None)
    if state is not None and callback.dirpath is not None:
        own = in_folder(state, callback.dirpath)
        if Path(own["best_model_path"]).is_file():
            states[callback.state_key] = own
