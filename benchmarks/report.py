"""What the benchmarks share: a table on the terminal, and a JSON file with machine and commit.

Results lie in a folder for each kind of machine, benchmarks/results/<kind>/, so that those of one
never replace those of another.
"""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from rich.table import Table

from saformer.runs.provenance import git_state, machine, versions
from saformer.terminal import console

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def machine_kind(facts: dict[str, Any]) -> str:
    """A folder's name for all machines of a kind: amd-epyc-avx2-2-cores, nvidia-h100-80gb-hbm3.

    Processors of one name may differ in their vector units, by which convolutions are fast or slow;
    the oldest results do not say which they had.

    Args:
        facts: What `saformer.runs.provenance.machine` says.
    """
    accelerators = facts["accelerators"]
    several = [str(len(accelerators))] if len(accelerators) > 1 else []
    processor = [facts["cpu"], facts.get("vectors", ""), f"{facts['cores']} cores"]
    words = [*several, accelerators[0]] if accelerators else processor
    return re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")


def table(header: list[str], rows: list[list[Any]]) -> None:
    """Print rows under a header."""
    grid = Table(*header)
    for row in rows:
        grid.add_row(*map(str, row))
    console().print(grid)


def results_folder(facts: dict[str, Any] | None = None) -> Path:
    """Where results of a machine go; made if needed.

    Args:
        facts: What `saformer.runs.provenance.machine` says of it, if it is not this machine whole.
    """
    folder = RESULTS / machine_kind(facts or machine())
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def save(name: str, measured: dict[str, Any], on_cpu: bool = False) -> None:
    """Write benchmarks/results/<kind>/<name>.json: command, machine, code, and what came out.

    The name of the host is left out: it says nothing about the machine.

    Args:
        name: Of the file.
        measured: What came out.
        on_cpu: Only the processor was measured, also where there is a GPU.
    """
    where = {key: value for key, value in machine().items() if key != "host"}
    if on_cpu:
        where["accelerators"] = []
    code = git_state(Path(__file__).parent)
    record = {
        "command": " ".join(["python -m", f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
        "machine": where,
        "versions": versions(),
        "commit": code["commit"],
        "dirty": code["dirty"],
        **measured,
    }
    path = results_folder(where) / f"{name}.json"
    path.write_text(json.dumps(record, indent=2) + "\n")
    print(f"wrote {os.path.relpath(path)}")
