"""Settings of a table in conf/paper/: its rows and columns. This module imports no torch."""

from dataclasses import dataclass, field
from pathlib import Path

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from saformer.config.files import options
from saformer.errors import SettingError, require
from saformer.names import require_line
from saformer.suggest import suggest


@dataclass(kw_only=True)
class RowConfig:
    """One experiment, which is trained with every seed of the table."""

    label: str
    """Name of the row."""
    overrides: list[str] = field(default_factory=list)
    """Arguments of `python train.py` for this experiment."""
    published: str | None = None
    """Method in published.yaml whose figures the row shows."""

    def __post_init__(self) -> None:
        require_line("label", self.label)


@dataclass(kw_only=True)
class SectionConfig:
    """Rows under a common heading."""

    label: str
    """The heading."""
    overrides: list[str] = field(default_factory=list)
    """Arguments that are put before those of each row."""
    rows: list[RowConfig] = field(default_factory=list)
    """Rows of the section; if empty, the rows of the table."""

    def __post_init__(self) -> None:
        require_line("label", self.label)


@dataclass(kw_only=True)
class TableConfig:
    """A table: its rows, with or without sections, and its columns."""

    title: str
    """Caption."""
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    """Seeds of every row."""
    columns: list[str] = field(default_factory=lambda: ["test_top1"])
    """Names in `saformer.runs.columns`."""
    rows: list[RowConfig] = field(default_factory=list)
    """Rows of a table without sections, and of every section without rows of its own."""
    sections: list[SectionConfig] = field(default_factory=list)
    """Sections from top to bottom."""

    def __post_init__(self) -> None:
        require_line("title", self.title)
        distinct = len(self.seeds) > 0 and len(set(self.seeds)) == len(self.seeds)
        require(distinct, "seeds", "be different numbers", self.seeds)
        filled = bool(self.rows) and not self.sections
        filled |= bool(self.sections) and all(part.rows or self.rows for part in self.sections)
        require(filled, "rows", "name at least one experiment", self.rows)

    def parts(self) -> list[SectionConfig]:
        """The sections with their rows; a table without sections is one without a heading."""
        sections = self.sections or [SectionConfig(label="")]
        return [
            SectionConfig(label=part.label, overrides=part.overrides, rows=part.rows or self.rows)
            for part in sections
        ]


def table_names() -> list[str]:
    """Names of all tables in conf/paper/, both the package's and the user's."""
    return list(options("paper"))


def table_path(name: str) -> Path:
    """The file of a table, from its name in conf/paper/ or the path of a YAML file.

    Raises:
        SettingError: There is no such table or file.
    """
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise SettingError(f"there is no file {name} that describes a table")
        return Path(name)
    tables = options("paper")
    if name not in tables:
        near, known = suggest(name, tables), ", ".join(tables)
        raise SettingError(f"there is no table '{name}'.{near} Tables: {known}, or a .yaml file")
    return tables[name]


def read_settings(path: Path, schema: type) -> object:
    """Read a YAML file as an object of `schema`.

    Raises:
        SettingError: The file is not YAML, or does not fit the schema; the message names the file.
    """
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.load(path))
        return OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        where = f"{error.full_key}: " if error.full_key else ""
        if isinstance(error, MissingMandatoryValue):
            reason = "is missing"
        raise SettingError(f"{path}: {where}{reason}") from None
    except (yaml.YAMLError, SettingError, OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{path}: {' '.join(str(error).split())}") from None


def read_table(path: Path) -> TableConfig:
    """Read the table that a file describes.

    Raises:
        SettingError: See `read_settings`.
    """
    table = read_settings(path, TableConfig)
    assert isinstance(table, TableConfig)
    return table
