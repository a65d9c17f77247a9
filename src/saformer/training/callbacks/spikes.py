"""Draw firing rates, attention and spikes of a tested network on the first test images."""

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
    """Draws firing rates, attention and spikes of the first test image after a test, as PNG.

    It also logs them to wandb. Only the first process draws, and nothing is drawn after
    `trainer.fast_dev_run`. A failure is only logged and does not stop the run.

    Args:
        folder: Folder of the figures.
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
        except Exception as error:  # a failed figure must not stop a long run
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
    """Draw the activity of a network on the first test images, or on all if there are fewer.

    Args:
        module: Our LightningModule, in evaluation mode.
        data: Its data module, after `setup`.
        images: Number of images.
        folder: Folder of the figures; created if needed.
        for_print: See `saformer.spikes.figures.write`.

    Returns:
        Paths of the figures.

    Raises:
        DataError: An image cannot be read.
    """
    # Import here, because matplotlib would add half a second to the start of every run.
    from saformer.spikes import figures
    from saformer.spikes.record import record

    config = cast(Config, module.config)
    tested = cast(Any, data.test_dataloader().dataset)
    batch = tested.__getitems__(list(range(min(images, len(tested)))))
    if isinstance(batch, tuple):  # otherwise it is a DataError, which the next hook raises
        batch = tuple(part.to(module.device) for part in batch)
    x, y = data.on_after_batch_transfer(batch, 0)
    recording = record(cast(torch.nn.Module, module.backbone), x)
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (config.dataset.mean, config.dataset.std))
    inputs: Tensor = x.cpu() * std + mean
    about = f"{config.model.name} on {config.dataset.name}, T={config.timesteps}"
    return figures.write(recording, inputs, y.tolist(), about, folder, for_print)
