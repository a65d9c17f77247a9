"""Lightning callbacks that do to a run what happens to runs."""

import os
import random
import resource
import subprocess
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback


class Signal(Callback):
    """Sends this process a signal.

    Args:
        number: Of the signal.
        where: Hook in which it comes.
        epoch: Of the training, from 0.
        batch: Of the epoch, from 0, for hooks of batches.
    """

    def __init__(self, number: int, where: str, epoch: int = 0, batch: int | None = None) -> None:
        def hook(trainer: pl.Trainer, pl_module: pl.LightningModule, *args: object) -> None:
            here = batch is None or args[-1] == batch
            if trainer.current_epoch == epoch and here:
                os.kill(os.getpid(), number)

        setattr(self, where, hook)


class FullDisk(Callback):
    """Leaves no room for what is written from the second epoch on.

    Args:
        left: Bytes that stay free on the disk; without one, what a file may hold at most.
        disk: Any folder of the disk; the file `filler` goes there.
    """

    def __init__(self, left: int, disk: str | None = None) -> None:
        self.left, self.disk = left, Path(disk) if disk else None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch != 1:
            return
        if self.disk:
            state = os.statvfs(self.disk)
            free = state.f_bavail * state.f_frsize
            (self.disk / "filler").write_bytes(bytes(free - self.left))
        else:
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.left, hard))


class ReadOnly(Callback):
    """Makes a folder read-only at the start of the second epoch.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 1:
            make_read_only(self.folder)


def make_read_only(folder: Path) -> None:
    """By a mount for root, whom permissions do not stop; by permissions for others."""
    if os.geteuid() == 0:
        subprocess.run(["mount", "--bind", folder, folder], check=True)
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
    else:
        subprocess.run(["chmod", "-R", "a-w", folder], check=True)


def make_writable(folder: Path) -> None:
    """Undo `make_read_only`."""
    undo = ["umount", "-l"] if os.geteuid() == 0 else ["chmod", "-R", "u+w"]
    subprocess.run([*undo, folder], check=True)


class Noise(Callback):
    """Adds noise from the global generators of Python, NumPy and torch to the gradients."""

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        scale = 1e-3 * random.random() * np.random.rand()
        for parameter in pl_module.parameters():
            if parameter.grad is not None:
                parameter.grad += scale * torch.randn_like(parameter)


class Stop(Callback):
    """Asks the trainer to stop, as early stopping does, in the midst of an epoch.

    Args:
        epoch: Of the training, from 0.
        batch: Of the epoch, from 0: after it.
        validation: After the first validation of the epoch.
    """

    def __init__(self, epoch: int, batch: int | None = None, validation: bool = False) -> None:
        self.epoch, self.batch, self.validation = epoch, batch, validation

    def on_train_batch_end(self, trainer: pl.Trainer, *args: object) -> None:
        if (trainer.current_epoch, args[-1]) == (self.epoch, self.batch):
            trainer.should_stop = True

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.validation and trainer.current_epoch == self.epoch:
            trainer.should_stop = True


class Spoil(Callback):
    """Puts a NaN into a weight or buffer of the network after an epoch's last step.

    Args:
        name: Of the weight or buffer.
        epoch: Of the training, from 0.
    """

    def __init__(self, name: str, epoch: int) -> None:
        self.name, self.epoch = name, epoch

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object
    ) -> None:
        if trainer.current_epoch == self.epoch and trainer.is_last_batch:
            pl_module.backbone.state_dict()[self.name].view(-1)[0] = torch.nan


class Falling(Callback):
    """Logs a metric that is best in the first epoch."""

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pl_module.log("val/falling", -float(trainer.current_epoch))
