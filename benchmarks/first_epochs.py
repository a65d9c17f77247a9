"""Validation accuracy of the first epochs, by how BatchNorm's statistics begin.

`python -m benchmarks.first_epochs` trains three epochs of the default run and of `digits_events`,
and ends there in the middle of the schedule. Training is the same in all of them, to the last bit:
only what evaluation normalises by differs.
"""

import argparse
import json
import tempfile
from pathlib import Path
from statistics import mean

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from benchmarks.report import save, table
from saformer.config.check import check
from saformer.config.overrides import compose
from saformer.runs import experiment
from saformer.training.callbacks import norms

EPOCHS = 3
WINDOWS = {"as in PyTorch": 0, "cumulative average": 1, "recent batches": norms.RECENT}
RECIPES = {"digits": [], "digits_events": ["experiment=digits_events"]}
ALWAYS = ["logger=none", "callbacks=none", "energy.enabled=false", "trainer=cpu"]


class End(Callback):
    """Ends a training early."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = trainer.current_epoch + 1 == EPOCHS


def accuracies(words: list[str]) -> list[float]:
    """Validation accuracy in percent after each epoch."""
    end = "+callbacks.end={_target_:benchmarks.first_epochs.End}"
    with tempfile.TemporaryDirectory() as folder:
        experiment.train(check(compose([*ALWAYS, *words, end])), Path(folder))
        lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    return [100 * json.loads(line)["val/top1"] for line in lines]


def begin_with(window: int) -> None:
    """Let a batch count window / (n + window) after n others; 0 leaves all to PyTorch."""

    def weight(batches: int) -> float:
        return window / (batches + window) if window else 0.0

    norms._weight = weight


def main() -> None:
    """Measure, print a table, write first_epochs.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    measured, rows = {}, []
    for recipe, words in RECIPES.items():
        for name, window in WINDOWS.items():
            begin_with(window)
            runs = [accuracies([*words, f"seed={seed}"]) for seed in range(args.seeds)]
            measured[f"{recipe}, {name}"] = runs
            means = [f"{mean(epoch):.1f}" for epoch in zip(*runs, strict=True)]
            rows.append([recipe, name, *means])
    epochs = [f"epoch {number}" for number in range(1, EPOCHS + 1)]
    table(["data", "statistics", *epochs], rows)
    save("first_epochs", {"val_top1": measured}, on_cpu=True)


if __name__ == "__main__":
    main()
