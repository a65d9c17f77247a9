"""What an evaluation draws at random depends on no training, and no training on evaluations."""

from contextlib import ExitStack
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from saformer.generators import apart


class OwnDraws(Callback):
    """Lets validation and test draw from seed and rank alone, each from the start of its stream.

    So a later test of a checkpoint draws as the one of its training did, and training goes on as if
    nobody had looked. Processes draw each for themselves: with rate coding a test depends on their
    number, as it does on `dataset.eval_batch_size` and on the kind of the device.

    Args:
        seed: Seed of the run.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self._undo = ExitStack()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._undo.enter_context(apart(self.seed, "val", trainer.global_rank))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._undo.close()

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._undo.enter_context(apart(self.seed, "test", trainer.global_rank))

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._undo.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        self._undo.close()
