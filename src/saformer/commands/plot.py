"""`saformer-plot`: figures for print from run folders, each as PNG and PDF."""

import argparse
from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from saformer import figure_style as style
from saformer.commands.words import WordParser, names_and_settings
from saformer.errors import SettingError, require
from saformer.escape import say, shell
from saformer.files import new_folder, with_time
from saformer.results.plots.bars import bars
from saformer.results.plots.curves import curves, read
from saformer.results.plots.pareto import pareto
from saformer.results.plots.timesteps import timesteps
from saformer.results.rows import collect, compose_rows, require_folders, titled
from saformer.results.settings import table_names
from saformer.results.tables import Table
from saformer.runs.folder import shown
from saformer.suggest import suggest

FIGURES: dict[str, Callable[[Table], Figure]] = {
    "pareto": pareto,
    "timesteps": timesteps,
    "bars": bars,
}
KINDS = (*FIGURES, "curves", "spikes")
EXAMPLES = """\
  pareto TABLE     test accuracy over estimated energy, with the Pareto front and published results
  timesteps TABLE  accuracy and energy over T, of rows that differ only in timesteps
  bars TABLE       accuracy of each row, its seeds, and its difference from the first row
  curves RUN ...   losses, accuracy, energy and rate over epochs; RUN is a folder, or one above it
  spikes RUN       firing rates, attention masks and spike rasters of a run or checkpoint

TABLE is a table of saformer-table, and settings mean the same as there.

tables: """


def run(words: list[str]) -> int:
    """Carry out one command line.

    Raises:
        SettingError: A word is wrong, or there is nothing to draw.
    """
    typed = _parse(words)
    names, settings = names_and_settings(typed.words)
    kinds = ", ".join(KINDS)
    if not names:
        raise SettingError(f"saformer-plot needs a figure. Type saformer-plot WHAT: {kinds}")
    what, *names = names
    if what not in KINDS:
        raise SettingError(f"there is no figure '{what}'.{suggest(what, KINDS)} Figures: {kinds}")
    outputs = require_folders(typed.outputs, typed.out)
    out = Path(typed.out) if typed.out else None
    if what in FIGURES:
        files = _of_table(what, _one(what, "TABLE", names), settings, outputs, out)
    elif what == "curves":
        files = _curves(names, settings, out)
    else:
        # Import it only here, because it loads torch, which the other figures do not need.
        from saformer.commands.spikes import draw

        require(typed.images > 0, "--images", "be positive", typed.images)
        files = draw(Path(_one(what, "RUN or CHECKPOINT", names)), settings, typed.images, out)
    say(f"{', '.join(file.name for file in files)} in {shown(files[0].parent)}")
    return 0


def _parse(words: list[str]) -> argparse.Namespace:
    parser = WordParser(
        "saformer-plot",
        usage="saformer-plot WHAT TABLE|RUN ... [setting=value ...] [--outputs DIR] [--out DIR]",
        description="Figures for print from run folders, as PNG and PDF.",
        epilog=EXAMPLES + ", ".join(table_names()),
    )
    help_ = f"{', '.join(KINDS)}; see below"
    parser.add_argument("words", metavar="WHAT TABLE|RUN, setting=value", nargs="*", help=help_)
    parser.add_folders(
        "folder that holds the runs of a table, at any depth (outputs)",
        "folder for the figures; old ones are replaced (outputs/plots/WHAT-TABLE-time)",
    )
    help_ = "number of images whose spikes are drawn (4)"
    parser.add_argument("--images", metavar="N", type=int, default=4, help=help_)
    return parser.parse_intermixed_args(words)


def _one(what: str, kind: str, names: list[str]) -> str:
    if len(names) != 1:
        given = ", ".join(names) or "none"
        raise SettingError(f"saformer-plot {what} needs one {kind}, not {given}")
    return names[0]


def _of_table(
    what: str, table_name: str, settings: list[str], outputs: Path, out: Path | None
) -> list[Path]:
    name, config = titled(table_name, settings)
    table = collect(name, config, compose_rows(name, config, settings), outputs)
    with style.printed():
        fig = FIGURES[what](table)
        files = _save(fig, f"{what}-{name}", out)
    absent = sum(len(row.missing) for row in table.rows)
    if absent or table.remarks:
        wanted = sum(len(row.seeds) for row in table.rows)
        problem, answer = f"{absent} of {wanted} runs are missing", "which, and how to make them"
        if not absent:
            problem, answer = "some runs are not counted", "which"
        words = ["saformer-table", table_name, *settings]
        if str(outputs) != "outputs":
            words += ["--outputs", str(outputs)]
        say(f"{problem}: {shell(words)} says {answer}")
    return files


def _curves(names: list[str], settings: list[str], out: Path | None) -> list[Path]:
    if settings:
        raise SettingError(f"saformer-plot curves takes no settings: drop {' '.join(settings)}")
    if not names:
        raise SettingError("saformer-plot curves needs a RUN: a run folder, or one above several")
    runs, remarks = read([Path(name) for name in names])
    with style.printed():
        files = _save(curves(runs), "curves", out)
    for remark in remarks:
        say(remark)
    return files


def _save(fig: Figure, name: str, out: Path | None) -> list[Path]:
    return style.save(fig, out or new_folder(with_time(Path("outputs/plots", name))), name)
