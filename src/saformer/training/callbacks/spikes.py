"""Draws what a tested network does on the first test images."""

import logging
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor

from saformer.config.schema import Config
from saformer.data.module import SpikingDataModule
from saformer.errors import UserError

log = logging.getLogger(__name__)


class SpikeFigures(Callback):
    """After a test draws firing rates, attention and spikes of the first image, as PNG.

    wandb gets them too. Only the first process draws, and nothing after `trainer.fast_dev_run`. A
    failure is told in the log and costs the run nothing else.

    Args:
        folder: Where the figures go.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        try:
            data = cast(SpikingDataModule, trainer.datamodule)  # type: ignore[attr-defined]
            with trainer.precision_plugin.forward_context():
                files = draw_first(pl_module, data, 1, self.folder, for_print=False)
        except Exception as error:  # the results of a long run must not hang on its pictures
            ours = not isinstance(error, UserError | OSError)
            log.warning("the figures of spikes could not be drawn: %s", error, exc_info=ours)
            return
        if isinstance(trainer.logger, WandbLogger):
            for file in files:
                trainer.logger.log_image(f"spikes/{file.stem}", [str(file)])


def draw_first(
    module: pl.LightningModule,
    data: SpikingDataModule,
    images: int,
    folder: Path,
    for_print: bool = True,
) -> list[Path]:
    """Draw what a network does on the first test images, or all if there are fewer.

    Args:
        module: Our LightningModule, in evaluation mode.
        data: Its data, set up.
        images: How many images.
        folder: Where to; made if needed.
        for_print: As of `saformer.spikes.figures.write`.

    Returns:
        The files.

    Raises:
        DataError: An image cannot be read.
    """
    # Here, because matplotlib takes half a second, which the start of a run can spare.
    from saformer.spikes import figures
    from saformer.spikes.record import record

    config = cast(Config, module.config)
    tested = cast(Any, data.test_dataloader().dataset)
    batch = tested.__getitems__(list(range(min(images, len(tested)))))
    if isinstance(batch, tuple):  # and not the error of a file, which the next line raises
        batch = tuple(part.to(module.device) for part in batch)
    x, y = data.on_after_batch_transfer(batch, 0)
    recording = record(cast(torch.nn.Module, module.backbone), x)
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (config.dataset.mean, config.dataset.std))
    inputs: Tensor = x.cpu() * std + mean
    about = f"{config.model.name} on {config.dataset.name}, T={config.timesteps}"
    return figures.write(recording, inputs, y.tolist(), about, folder, for_print)
