"""Run folders with chosen numbers, as trainings leave them, for the tests of figures."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from saformer.results.tables import Row

Numbers = dict[str, float | None]
"""`top1` in percent, `energy` in mJ; None where a run has none."""


def fabricate(rows: list[Row], outputs: Path, numbers: Callable[[Row, int], Numbers]) -> None:
    """A finished run for each row and seed that `numbers` gives any."""
    for i, row in enumerate(rows):
        for seed in row.seeds:
            if given := numbers(row, seed):
                folder = outputs / f"row{i}" / str(seed)
                leave_run(folder, row.config, seed, given)


def leave_run(folder: Path, config: dict[str, Any], seed: int, given: Numbers) -> None:
    """One run folder: run.json, metrics.jsonl of four epochs, results.json."""
    folder.mkdir(parents=True)
    config = {**config, "seed": seed}
    start = {
        "time": f"2030-01-01T00:00:{seed:02}+00:00",
        "git": {"commit": "0" * 40, "dirty": False},
        "config": config,
    }
    (folder / "run.json").write_text(json.dumps({"starts": [start]}))
    top1, energy = given["top1"], given.get("energy")
    lines = []
    for epoch in range(1, 5):
        line = {
            "epoch": epoch,
            "train/loss": 2.0 / epoch + 0.01 * seed,
            "val/loss": 2.1 / epoch + 0.01 * seed,
            "val/top1": (top1 or 0.0) / 100 * (1 - 0.5**epoch),
        }
        if energy is not None:
            line |= {"energy/total_mJ": energy * (1 - 0.3**epoch), "rate/mean": 0.04 * epoch}
        lines.append(line)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    results: dict[str, Any] = {
        "status": "done",
        "test": {} if top1 is None else {"test/top1": top1 / 100},
        "best": lines[2],
        "last": lines[3],
        "energy": {} if energy is None else {"energy/total_mJ": energy},
    }
    (folder / "results.json").write_text(json.dumps(results))
