"""Count operations and spikes of a network in validation and test, and report on them.

One callback reports energy, firing rates and dead neurons, because all of them use the same count.
"""

import json
import logging
import os
from math import inf
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn

from saformer.energy.costs import cost_model
from saformer.energy.counter import Counter, coverage
from saformer.energy.settings import EnergyConfig
from saformer.energy.silence import silence
from saformer.energy.summary import (
    Scalars,
    columns,
    layer_means,
    layer_rates,
    layer_rows,
    scalars,
)
from saformer.energy.table import LayerTable, merge
from saformer.errors import require
from saformer.files import new_folder, write_whole

log = logging.getLogger(__name__)


class EnergyMonitor(Callback):
    """Logs `energy/*`, `rate/*` and `neurons/*`, and writes a report on the whole test set.

    In a validation epoch it counts whole batches until it has `config.samples` images, which the
    data module has put into a fixed random order. A test counts all images. Other callbacks can
    monitor the scalars. A validation writes the rates of every layer and timestep to `rates.jsonl`;
    a test writes the whole report.

    Args:
        config: Convention, hardware models, samples.
        folder: Folder of `rates.jsonl` and of the report.
        facts: Facts to write beside the numbers of a report: model, data, commit, versions.
        new: Whether to write the report to a new folder, whose name gets a number if it exists.
        plots: Whether a report has figures.

    Raises:
        SettingError: There is no hardware model of a configured name.
    """

    def __init__(
        self,
        config: EnergyConfig,
        folder: Path,
        facts: dict[str, Any],
        new: bool = False,
        plots: bool = True,
    ) -> None:
        super().__init__()
        # Build the models now, so that a wrong name is reported before the training.
        names = [cost_model(name).name for name in config.costs]
        rule = "name models with different names, so that a report can distinguish them"
        require(len(set(names)) == len(names), "energy.costs", rule, names)
        self.config = config
        self.folder = folder
        self.facts = facts
        self.new = new
        self.plots = plots
        self.scalars: Scalars = {}
        """Metrics of the last validation or test, in full precision; empty if nothing was counted.
        """
        self.table: LayerTable | None = None
        """Counts of the last validation or test."""
        self._counter: Counter | None = None
        self._samples = 0.0
        self._started = False
        self._coverage: float | None = None
        self._rates: list[str] = []

    def state_dict(self) -> dict[str, Any]:
        return {"rates": list(self._rates)}  # so that a resumed run has the lines of all epochs

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._rates = list(state_dict["rates"])

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.scalars = {}
        due = (trainer.current_epoch + 1) % self.config.every_n_epochs == 0
        alone = trainer.state.fn is not TrainerFn.FITTING  # a call of trainer.validate()
        if (due or alone) and not trainer.sanity_checking:
            self._begin(pl_module, self.config.samples / trainer.world_size)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begin(pl_module, inf)

    def _begin(self, pl_module: pl.LightningModule, samples: float) -> None:
        self._counter = Counter(_network(pl_module))
        self._samples = samples
        self._started = False

    def on_validation_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._start_batch(batch)

    def on_test_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._start_batch(batch)

    def _start_batch(self, batch: Any) -> None:
        # The last batch of a process may be empty.
        if self._counter and len(batch[0]) and self._counter.samples < self._samples:
            self._counter.start(len(batch[0]))
            self._started = True

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._end_batch(pl_module, batch)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._end_batch(pl_module, batch)

    def _end_batch(self, pl_module: pl.LightningModule, batch: Any) -> None:
        if not self._counter:
            return
        self._counter.stop()
        if self._coverage is None and self._counter.samples:
            network = _network(pl_module)
            self._coverage = coverage(network, batch[0], self._counter.table())
            if self._coverage < 1:
                log.warning(
                    "energy: %.1f %% of the network's operations are counted; the others are not "
                    "in layers or modules of saformer.models.spike_ops",
                    100 * self._coverage,
                )

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        if self._counter:
            self._counter.stop(keep=False)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._counter:
            return
        table = self._finish(trainer, pl_module)
        if trainer.logger is not None:
            trainer.logger.log_metrics(layer_means(table), trainer.global_step)
        if trainer.is_global_zero:
            line = {"epoch": trainer.current_epoch + 1, "rates": layer_rates(table)}
            self._rates.append(json.dumps(line) + "\n")
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self.folder / "rates.jsonl", "".join(self._rates))

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._finish(trainer, pl_module)

    def _finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> LayerTable:
        """Merge the counts of all ranks, and log the scalars."""
        assert self._counter is not None
        if trainer.world_size > 1:
            of_rank = (self._counter.table(), self._coverage) if self._started else None
            shares: list[tuple[LayerTable, float | None] | None] = [None] * trainer.world_size
            dist.all_gather_object(shares, of_rank)
            not_empty = [share for share in shares if share is not None]
            table = merge(share[0] for share in not_empty)
            self._coverage = not_empty[0][1]
        else:
            table = self._counter.table()
        self._counter = None
        self.table = table
        self.scalars = scalars(table, self.config) | {"energy/coverage": self._coverage or 0.0}
        pl_module.log_dict(self.scalars, batch_size=table.samples)
        return table

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.table is None or not trainer.is_global_zero:
            return
        # Import here, because matplotlib would add half a second to the start of every run.
        from saformer.energy import report

        scores = {name: float(value) for name, value in trainer.callback_metrics.items()}
        words = silenced(trainer, pl_module)
        facts = {**self.facts, "precision": trainer.precision, "accuracy": scores.get("test/top1")}
        facts["silence"] = words
        if self.new:
            self.folder = new_folder(self.folder)
        report.write(self.table, self.config, self.folder, facts, self.plots)
        if isinstance(trainer.logger, WandbLogger):
            _to_wandb(trainer.logger, self.table, self.config, self.folder)
        log.info(
            "energy %.4g mJ an image (%s, estimated), %s   %s",
            self.scalars["energy/total_mJ"],
            self.config.convention,
            ", but ".join(words) or f"{self.scalars['energy/ratio_ann']:.2g} of its FP32 ANN",
            os.path.relpath(self.folder / "report.md"),
        )


def counted(trainer: pl.Trainer) -> Scalars:
    """Energy metrics of a trainer's last validation or test; empty without an `EnergyMonitor`."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    found = [callback.scalars for callback in callbacks if isinstance(callback, EnergyMonitor)]
    return found[0] if found else {}


def silenced(trainer: pl.Trainer, pl_module: pl.LightningModule) -> list[str]:
    """Warnings about a network that hardly fires, after its validation or test."""
    split = "test" if trainer.state.fn is TrainerFn.TESTING else "validation"
    return silence(counted(trainer), getattr(pl_module, "same_logits", False), split)


def _network(pl_module: pl.LightningModule) -> nn.Module:
    network: nn.Module = pl_module.backbone  # type: ignore[assignment]
    return network


def _to_wandb(logger: WandbLogger, table: LayerTable, config: EnergyConfig, folder: Path) -> None:
    rows = layer_rows(table, config)
    names = columns(rows)
    logger.log_table("energy/layers", names, [[row.get(name) for name in names] for row in rows])
    for image in sorted(folder.glob("*.png")):
        logger.log_image(f"energy/{image.stem}", [str(image)])
