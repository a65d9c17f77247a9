"""Keep the random draws of training and of evaluations independent of each other."""

from contextlib import ExitStack
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from saformer.generators import apart


class OwnDraws(Callback):
    """Seeds every validation and test from seed and rank, and restores the generators afterwards.

    So a later test of a checkpoint draws the same numbers as the test of its training, and an
    evaluation does not change the training. Each process draws its own numbers. With rate coding, a
    test therefore depends on the number of processes, as it does on `dataset.eval_batch_size` and
    on the kind of device.

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
