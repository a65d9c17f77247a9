"""Exponential moving average of the weights."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.trainer.states import TrainerFn


class WeightAverage(EMAWeightAveraging):
    """Lightning's EMAWeightAveraging, except that the average is tested after a training.

    A checkpoint holds the average, and beside it the weights as trained, to go on from. Lightning's
    test right after a training loads the latter, any later test the former.
    """

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.state.fn is TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
