"""The default training, as a user starts it: `python -m benchmarks.digits`.

Runs `python train.py` for several seeds, one after the other, each a process of its own, and
reports test accuracy, wall time from start to exit, and peak memory. Writes JSON.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import ROOT, save, table


def run(seed: int, folder: Path, overrides: list[str]) -> dict[str, float]:
    """Train once and measure.

    Args:
        seed: Seed of the run.
        folder: Where its outputs go.
        overrides: Further settings.
    """
    command = [sys.executable, str(ROOT / "train.py"), f"seed={seed}", "hydra.run.dir=run"]
    start = time.perf_counter()
    process = subprocess.Popen([*command, *overrides], cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    if status:
        raise SystemExit(f"seed {seed}: training failed with status {status}")
    results = json.loads((folder / "run" / "results.json").read_text())
    return {
        "seed": seed,
        "test_top1": results["test"]["test/top1"],
        "last_val_top1": results["last"]["val/top1"],
        "params": results["params"],
        "wall_s": wall,
        "peak_MiB": usage.ru_maxrss / 1024,
    }


def main(name: str = "digits", settings: Sequence[str] = ()) -> None:
    """Measure, print a table, write benchmarks/results/<kind>/<name>.json.

    Args:
        name: Of the file.
        settings: What is trained, before the settings of the command line.
    """
    parser = argparse.ArgumentParser(description="Train several seeds and measure.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("overrides", nargs="*", help="settings, as for train.py")
    args = parser.parse_args()
    overrides = [*settings, *args.overrides]
    rows = []
    for seed in range(args.seeds):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(run(seed, Path(folder), overrides))
        print(rows[-1], flush=True)
    median = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    lines = [
        [label, f"{row['test_top1']:.2%}", f"{row['wall_s']:.1f}", f"{row['peak_MiB']:.0f}"]
        for label, row in [*enumerate(rows), ("median", median)]
    ]
    table(["seed", "test accuracy", "wall s", "peak MiB"], lines)
    save(name, {"overrides": overrides, "runs": rows, "median": median})


if __name__ == "__main__":
    main()
