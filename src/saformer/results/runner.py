"""Run what a table is missing, one training after the other."""

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

from saformer.results.collect import shown
from saformer.results.match import wanted
from saformer.results.tables import Row, new_folder


def run_missing(rows: list[Row], outputs: Path, logs: Path) -> list[str]:
    """Train every seed that is missing; go on with those that were cut off.

    Args:
        rows: Rows of a table with the runs there are.
        outputs: Folder that new runs go to.
        logs: Folder for what each training prints; made if needed.

    Returns:
        One line for each that failed.
    """
    jobs: dict[tuple[str, int], tuple[Row, int]] = {}  # two rows may be one experiment
    for row in rows:
        settings = json.dumps(wanted(row.config, row.words), sort_keys=True)
        for seed in row.missing:
            jobs.setdefault((settings, seed), (row, seed))
    failed = []
    for number, (row, seed) in enumerate(jobs.values(), start=1):
        logs.mkdir(parents=True, exist_ok=True)
        words = row.job(seed)
        goes_on = row.goes_on(seed)
        if not goes_on:
            words.append(f"hydra.run.dir={new_folder(outputs)}")
        name = f"{row.name}, seed {seed}"
        log = logs / f"{number}.log"
        where = f"goes on in {words[-1].partition('=')[2]}" if goes_on else f"log {shown(log)}"
        print(f"[{number}/{len(jobs)}] {name}   {where}", flush=True)
        start = time.perf_counter()
        with log.open("w", encoding="utf-8") as file:
            file.write(f"# {name}\n# {shlex.join(words)}\n")
            file.flush()
            command = [sys.executable, "-m", "saformer.cli", *words]
            code = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
            ).returncode
        seconds = time.perf_counter() - start
        last = next(
            reversed(log.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()), ""
        )
        print(f"    {last}   {seconds:.0f} s", flush=True)
        if code:
            why = last.removeprefix("error: ")
            failed.append(f"{name} failed with exit code {code}: {why} (log: {shown(log)})")
    return failed
