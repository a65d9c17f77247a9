"""Build the rows of a table from its file and the command line, and find their runs."""

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
    """Check the folder of the runs and the folder of the results, and return the former.

    Args:
        outputs: Folder of the runs, as typed. It need not exist if it is the default.
        out: Folder of the results, as typed; empty for none.
        makes_runs: Whether the command makes runs; then `outputs` need not exist.

    Raises:
        SettingError: `outputs` is not a folder, or `out` is a file.
    """
    new = not Path(outputs).exists() and (makes_runs or outputs == "outputs")
    if not new and not Path(outputs).is_dir():
        raise SettingError(f"--outputs {outputs} is not a folder")
    if out and Path(out).exists() and not Path(out).is_dir():
        raise SettingError(f"--out {out} is a file: name a folder")
    return Path(outputs)


def titled(name: str, settings: list[str]) -> tuple[str, TableConfig]:
    """Read a table by its name or file; return its short name and its settings.

    Args:
        name: Name in conf/paper/, or a YAML file.
        settings: Overrides from the command line, which are added to the title.

    Raises:
        SettingError: There is no such table, or its file is wrong.
    """
    path = table_path(name)
    require_name("the name of a table's file", path.stem)
    config = read_table(path)
    if settings:  # the caption must name all settings of the runs
        config.title += f", with {' '.join(settings)}"
    return path.stem, config


def collect(name: str, config: TableConfig, rows: list[Row], outputs: Path) -> Table:
    """Find the runs of the rows in a folder; the remarks of the table list unusable runs.

    Raises:
        SettingError: Runs of one row differ in a setting, so that their mean has no meaning.
    """
    runs, damaged = find(outputs)
    table = fill(name, config, rows, runs, outputs)
    table.remarks.extend(damaged)
    return table


def compose_rows(name: str, table: TableConfig, settings: list[str]) -> list[Row]:
    """The rows of a table, each with the whole configuration of its training.

    Args:
        name: Name of the table, for errors.
        table: Settings of the table.
        settings: Overrides for every row.

    Raises:
        SettingError: The overrides of a row are invalid.
    """
    literature = published()
    rows = []
    for part in table.parts():
        for row in part.rows:
            words = [*part.overrides, *row.overrides, *settings]
            if any(word.partition("=")[0] == "seed" for word in words):
                raise SettingError(
                    f"table {name} sets the seeds itself, {table.seeds}: drop seed=..."
                )
            try:
                config = _composed(words)
            except SettingError as error:
                raise SettingError(f"table {name}, row '{row.label}': {error}") from None
            figures = []
            if row.published:
                dataset, timesteps = config["dataset"]["name"], config["timesteps"]
                figures = literature.of(row.published, dataset, timesteps)
            rows.append(Row(part.label, row.label, words, config, table.seeds, figures))
    return rows


def _composed(words: list[str]) -> dict[str, Any]:
    """Compose a configuration as plain values, like the one in a run.json."""
    composed = to_dict(check(compose(words)))
    plain: dict[str, Any] = json.loads(json.dumps(composed))
    return plain
