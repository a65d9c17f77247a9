"""Run the trainings that a table is missing, one after the other."""

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
    """Train every missing seed; resume the runs that were interrupted.

    A seed that another process is training is skipped, so that several commands can share the work.

    Args:
        rows: Rows of a table with their existing runs.
        outputs: Folder of new runs.
        logs: Folder for the output of each training; created if needed.

    Returns:
        One line for each training that failed.
    """
    jobs: dict[str, tuple[Row, int]] = {}  # by settings, because two rows may be one experiment
    for row in rows:
        settings = json.dumps(wanted(row.config, row.words), sort_keys=True)
        for seed in row.missing:
            jobs.setdefault(f"{settings} {seed}", (row, seed))
    outputs.mkdir(parents=True, exist_ok=True)
    failed = []
    for number, (key, (row, seed)) in enumerate(jobs.items(), start=1):
        name = f"{row.name}, seed {seed}"
        place = f"[{number}/{len(jobs)}] {name}"
        # Lock by settings too: a new training needs seconds until its run folder has a run.json.
        claim = f".{hashlib.sha256(key.encode()).hexdigest()[:12]}.lock"
        try:
            with held(outputs, claim):
                row.take(find(outputs)[0])
                if seed not in row.missing:
                    say(f"{place}   is done: another process trained it")
                elif who := row.holder(seed):
                    say(f"{place}   is being trained by {who}")
                elif why := _run(row, seed, place, outputs, logs / f"{number}.log"):
                    failed.append(f"{name} {why}")
        except InUseError:
            say(f"{place}   is skipped: {holder(outputs, claim) or 'another process'} trains it")
    return failed


def _run(row: Row, seed: int, place: str, outputs: Path, log: Path) -> str | None:
    """Train one seed; return why it failed, or None."""
    log.parent.mkdir(parents=True, exist_ok=True)
    words = row.job(seed)
    goes_on = row.goes_on(seed)
    if not goes_on:
        words.append(f"hydra.run.dir={new_run_dir(outputs)}")
    where = f"resumes in {words[-1].partition('=')[2]}" if goes_on else f"log {shown(log)}"
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
