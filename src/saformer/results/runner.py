"""Run what a table is missing, one training after the other."""

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

from saformer.errors import InUseError
from saformer.escape import plain, say, shell
from saformer.results.tables import Row, new_run_dir
from saformer.runs.folder import find, shown
from saformer.runs.identity import wanted
from saformer.runs.lock import held, holder


def run_missing(rows: list[Row], outputs: Path, logs: Path) -> list[str]:
    """Train every seed that is missing; go on with those that were cut off.

    What another process trains is left to it, so that several commands at a time share the work.

    Args:
        rows: Rows of a table with the runs there are.
        outputs: Folder that new runs go to.
        logs: Folder for what each training prints; made if needed.

    Returns:
        One line for each that failed.
    """
    jobs: dict[str, tuple[Row, int]] = {}  # two rows may be one experiment
    for row in rows:
        settings = json.dumps(wanted(row.config, row.words), sort_keys=True)
        for seed in row.missing:
            jobs.setdefault(f"{settings} {seed}", (row, seed))
    outputs.mkdir(parents=True, exist_ok=True)
    failed = []
    for number, (key, (row, seed)) in enumerate(jobs.items(), start=1):
        name = f"{row.name}, seed {seed}"
        place = f"[{number}/{len(jobs)}] {name}"
        # A training needs seconds until its folder tells what it is.
        claim = f".{hashlib.sha256(key.encode()).hexdigest()[:12]}.lock"
        try:
            with held(outputs, claim):
                row.take(find(outputs)[0])
                if seed not in row.missing:
                    say(f"{place}   was made meanwhile")
                elif who := row.holder(seed):
                    say(f"{place}   is being trained by {who}")
                elif why := _run(row, seed, place, outputs, logs / f"{number}.log"):
                    failed.append(f"{name} {why}")
        except InUseError:
            say(f"{place}   is left to {holder(outputs, claim) or 'another'}")
    return failed


def _run(row: Row, seed: int, place: str, outputs: Path, log: Path) -> str | None:
    """Train one seed; why it failed, or None."""
    log.parent.mkdir(parents=True, exist_ok=True)
    words = row.job(seed)
    goes_on = row.goes_on(seed)
    if not goes_on:
        words.append(f"hydra.run.dir={new_run_dir(outputs)}")
    where = f"goes on in {words[-1].partition('=')[2]}" if goes_on else f"log {shown(log)}"
    say(f"{place}   {where}")
    start = time.perf_counter()
    with log.open("w", encoding="utf-8") as file:
        file.write(f"# {plain(row.name)}, seed {seed}\n# {shell(words)}\n")
        file.flush()
        command = [sys.executable, "-m", "saformer.cli", *words]
        code = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
        ).returncode
    seconds = time.perf_counter() - start
    last = next(
        reversed(log.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()), ""
    )
    say(f"    {last}   {seconds:.0f} s")
    if code:
        return f"failed with exit code {code}: {last.removeprefix('error: ')} (log: {shown(log)})"
    return None
