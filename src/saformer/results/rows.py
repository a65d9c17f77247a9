"""The rows of a table: what its file and the command line make of them, and the runs they have."""

import json
from pathlib import Path
from typing import Any

from saformer.config.check import check, to_dict
from saformer.config.overrides import compose
from saformer.errors import SettingError
from saformer.names import require_name
from saformer.results.published import published
from saformer.results.settings import TableConfig, read_table, table_path
from saformer.results.tables import Row, Table, fill
from saformer.runs.folder import find


def require_folders(outputs: str, out: str, makes_runs: bool = False) -> Path:
    """The folder that runs lie in, as it was typed; the default may not be there yet, nor any if
    runs are to be made.

    Raises:
        SettingError: It is no folder, or the one for what is made is a file.
    """
    new = not Path(outputs).exists() and (makes_runs or outputs == "outputs")
    if not new and not Path(outputs).is_dir():
        raise SettingError(f"--outputs {outputs} is not a folder")
    if out and Path(out).exists() and not Path(out).is_dir():
        raise SettingError(f"--out {out} is a file: name a folder")
    return Path(outputs)


def titled(name: str, settings: list[str]) -> tuple[str, TableConfig]:
    """A table by its name or file: its short name, and what it says, its title with the settings.

    Raises:
        SettingError: There is none, or it is wrong.
    """
    path = table_path(name)
    require_name("the name of a table's file", path.stem)
    config = read_table(path)
    if settings:  # or the caption would speak of other data than was typed
        config.title += f", with {' '.join(settings)}"
    return path.stem, config


def collect(name: str, config: TableConfig, rows: list[Row], outputs: Path) -> Table:
    """Give rows the runs that lie in a folder, and say which runs cannot be used.

    Raises:
        SettingError: Runs of one row were made in ways whose numbers must not be mixed.
    """
    runs, damaged = find(outputs)
    table = fill(name, config, rows, runs, outputs)
    table.remarks.extend(damaged)
    return table


def compose_rows(name: str, table: TableConfig, settings: list[str]) -> list[Row]:
    """The rows of a table, each with the whole configuration of its training.

    Args:
        name: Name of the table, for errors.
        table: What its file says.
        settings: Overrides for every row.

    Raises:
        SettingError: The overrides of a row make no sense.
    """
    known = published()
    rows = []
    for part in table.parts():
        for one in part.rows:
            words = [*part.overrides, *one.overrides, *settings]
            if any(word.partition("=")[0] == "seed" for word in words):
                raise SettingError(
                    f"table {name} sets the seeds itself, {table.seeds}: drop seed=..."
                )
            try:
                config = _composed(words)
            except SettingError as error:
                raise SettingError(f"table {name}, row '{one.label}': {error}") from None
            figures = []
            if one.published:
                dataset, timesteps = config["dataset"]["name"], config["timesteps"]
                figures = known.of(one.published, dataset, timesteps)
            rows.append(Row(part.label, one.label, words, config, table.seeds, figures))
    return rows


def _composed(words: list[str]) -> dict[str, Any]:
    """A configuration as a run.json holds it."""
    composed = to_dict(check(compose(words)))
    plain: dict[str, Any] = json.loads(json.dumps(composed))
    return plain
