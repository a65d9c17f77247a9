"""Draw docs/terminal.png, what a training prints: `python scripts/draw_terminal.py`, a minute."""

import subprocess
import sys
import tempfile
from pathlib import Path

from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs" / "terminal.png"
COMMANDS = (("train.py", "logger=none"), ("train.py", "timestep=2"))
SHOWN = 4  # lines at the beginning and at the end of an output
ADVANCE, LEADING, MARGIN = 0.0602, 0.155, 0.15  # inches: of a letter, of a line, around all
SIZE = 7.2  # points


def output(words: tuple[str, ...], folder: str) -> list[str]:
    """The command and what it prints, without the middle of many lines."""
    done = subprocess.run(
        [sys.executable, ROOT / words[0], *words[1:]], capture_output=True, text=True, cwd=folder
    )
    lines = (done.stdout + done.stderr).rstrip().splitlines()
    if len(lines) > 2 * SHOWN + 1:
        lines[SHOWN:-SHOWN] = ["..."]
    return [f"$ python {' '.join(words)}", *lines, ""]


def main() -> None:
    """A light page of fixed-width text, which prints."""
    with tempfile.TemporaryDirectory() as folder:
        lines = [line for words in COMMANDS for line in output(words, folder)][:-1]
    width = 2 * MARGIN + ADVANCE * max(map(len, lines))
    height = 2 * MARGIN + LEADING * len(lines)
    fig = Figure(figsize=(width, height), dpi=200, facecolor="#f4f5f7")
    for i, line in enumerate(lines):
        typed = line.startswith("$")
        fig.text(
            *(MARGIN / width, 1 - (MARGIN + LEADING * (i + 0.75)) / height, line),
            **{"family": "DejaVu Sans Mono", "size": SIZE, "parse_math": False},
            **{"color": "#222222", "weight": "bold" if typed else "normal"},
        )
    fig.savefig(OUT, metadata={"Software": None})


if __name__ == "__main__":
    main()
