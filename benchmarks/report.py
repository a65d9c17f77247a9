"""What the benchmarks share: a table on the terminal, and a JSON file with machine and commit."""

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from saformer.provenance import git_state, machine, versions

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def table(header: list[str], rows: list[list[Any]]) -> None:
    """Print rows under a header."""
    grid = Table(*header)
    for row in rows:
        grid.add_row(*map(str, row))
    Console().print(grid)


def save(name: str, measured: dict[str, Any]) -> None:
    """Write benchmarks/results/<name>.json: command, machine, code, and what came out.

    The name of the host is left out: it says nothing about the machine.
    """
    where = {key: value for key, value in machine().items() if key != "host"}
    code = git_state(Path(__file__).parent)
    record = {
        "command": " ".join(["python -m", f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
        "machine": where,
        "versions": versions(),
        "commit": code["commit"],
        "dirty": code["dirty"],
        **measured,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(record, indent=2) + "\n")
    print(f"wrote {path.relative_to(ROOT)}")
