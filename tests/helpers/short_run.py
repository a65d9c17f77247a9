"""A training of a second, and what it leaves."""

import json
from pathlib import Path

# 100 images, two epochs.
SHORT = (
    "logger=none",
    "trainer=cpu",
    "dataset.train_subset=100",
    "epochs=2",
    "scheduler.warmup_epochs=0",
)


def lines(run: str) -> list[dict]:
    """The epochs of a run."""
    return [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]


def results(run: str) -> dict:
    """The results of a run."""
    return json.loads(Path(run, "results.json").read_text())
