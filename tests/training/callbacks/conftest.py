"""A network that trains in a second and logs what the real one logs."""

from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset


class TinyModule(pl.LightningModule):
    """One linear layer, three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self.layer(batch[0]), batch[1])
        self.log("train/loss", loss, on_step=False, on_epoch=True)
        return loss

    def evaluate(self, stage, batch):
        logits = self.layer(batch[0])
        self.log(f"{stage}/loss", F.cross_entropy(logits, batch[1]))
        self.log(f"{stage}/top1", (logits.argmax(1) == batch[1]).float().mean())

    def validation_step(self, batch, batch_idx):
        self.evaluate("val", batch)

    def test_step(self, batch, batch_idx):
        self.evaluate("test", batch)

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)]


def loader(seed: int, shuffle: bool = False) -> DataLoader:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(32, 4, generator=generator)
    return DataLoader(TensorDataset(x, x[:, :3].argmax(1)), batch_size=8, shuffle=shuffle)


@pytest.fixture
def fit() -> Callable:
    """Train, and test the best checkpoint; returns the trainer."""

    def call(
        run_dir: Path,
        *callbacks: Callback,
        epochs: int = 3,
        seed: int = 0,
        ckpt_path: Path | None = None,
        test: bool = True,
        best: ModelCheckpoint | None = None,
        **options,
    ) -> pl.Trainer:
        pl.seed_everything(seed, verbose=False)
        run_dir.mkdir(exist_ok=True)
        keep = {"dirpath": run_dir / "checkpoints", "enable_version_counter": False}
        best = best or ModelCheckpoint(filename="best", monitor="val/top1", mode="max", **keep)
        # `save_last=True` of the above would write last.ckpt only when the best improves.
        last = ModelCheckpoint(filename="last", **keep)
        trainer = pl.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            callbacks=[best, last, *callbacks],
            logger=False,
            enable_model_summary=False,
            default_root_dir=run_dir,
            **options,
        )
        module = TinyModule()
        data = (loader(1, shuffle=True), loader(2))
        trainer.fit(module, *data, ckpt_path=ckpt_path, weights_only=True)
        if test:
            trainer.test(module, loader(3), ckpt_path="best", weights_only=True, verbose=False)
        return trainer

    return call
