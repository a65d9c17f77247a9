"""`saformer-table`: make tables from run folders.

Words without `=` are tables. The other words are overrides, added to every row and composed as for
a training. So a row stands for what its command would train.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from saformer.commands.words import WordParser, names_and_settings
from saformer.errors import SettingError
from saformer.escape import plain, say
from saformer.files import new_folder, with_time
from saformer.results import render
from saformer.results.rows import collect, compose_rows, require_folders, titled
from saformer.results.runner import run_missing
from saformer.results.settings import table_names
from saformer.results.tables import Table
from saformer.runs.folder import shown
from saformer.terminal import console

EXAMPLES = """\
  digits                     the table as far as it is trained, and the command of each missing run
  main trainer.devices=8     the same with more settings for every row and command
  digits --run               train missing runs first: skip finished ones, resume stopped ones
  mine.yaml --out paper      a table of your own; its files go into the folder paper

A run belongs to a row if it was trained with the same settings, in any folder, on any machine.
--run skips runs that another process trains now. Two --run at once share the missing runs.

tables: """


def run(words: list[str]) -> int:
    """Carry out one command line.

    Returns:
        The exit code: 1 if a training failed.

    Raises:
        SettingError: A word is wrong, or runs contradict each other.
    """
    typed = _parse(words)
    names, settings = names_and_settings(typed.words)
    if not names:
        tables = ", ".join(table_names())
        raise SettingError(f"saformer-table needs a table. Type saformer-table NAME: {tables}")
    outputs, failed = require_folders(typed.outputs, typed.out, typed.run), []
    for name, config in [titled(name, settings) for name in names]:
        rows = compose_rows(name, config, settings)
        table = collect(name, config, rows, outputs)
        # Make the folder only now, so that a refused command leaves none.
        out = Path(typed.out) if typed.out else new_folder(with_time(Path("outputs/tables", name)))
        if typed.run:
            failed += run_missing(rows, outputs, out / "logs")
            table = collect(name, config, rows, outputs)
        _print(table)
        _write(table, out)
    for line in failed:
        say(f"error: {line}", sys.stderr)
    return 1 if failed else 0


def _parse(words: list[str]) -> argparse.Namespace:
    parser = WordParser(
        "saformer-table",
        usage="saformer-table TABLE ... [setting=value ...] [--run] [--outputs DIR] [--out DIR]",
        description="Turn run folders into tables: on the terminal, as markdown, LaTeX and CSV.",
        epilog=EXAMPLES + ", ".join(table_names()),
    )
    parser.add_argument("words", metavar="TABLE, setting=value", nargs="*", help="see below")
    parser.add_argument("--run", action="store_true", help="first train the missing runs")
    parser.add_folders(
        "folder that holds the runs, at any depth (outputs)",
        "folder for TABLE.md, .tex and .csv; old ones are replaced (outputs/tables/TABLE-time)",
    )
    return parser.parse_intermixed_args(words)


def _print(table: Table) -> None:
    terminal = console()
    terminal.print(render.terminal(table))
    for line in _below(table):
        terminal.print(plain(line), markup=False, highlight=False, soft_wrap=True)


def _below(table: Table) -> Iterator[str]:
    """Lines below a table: notes, remarks and commands."""
    yield from render.grid(table).notes
    if table.remarks:
        yield from ("", *table.remarks)
    if commands := render.missing(table):
        wanted = sum(len(row.seeds) for row in table.rows)
        absent = sum(len(row.missing) for row in table.rows)
        yield ""
        yield f"{absent} of {wanted} runs are missing; --run makes them, or these commands do:"
        yield from commands


def _write(table: Table, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    texts = {"md": render.markdown, "tex": render.latex, "csv": render.csv_text}
    for ending, text in texts.items():
        (out / f"{table.name}.{ending}").write_text(text(table), encoding="utf-8")
    files = ", ".join(f"{table.name}.{ending}" for ending in texts)
    print()
    say(f"{files} in {shown(out)}")
