"""What a file of conf/paper/ says: the rows and columns of a table. Imports no torch."""

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
    """What the row is called."""
    overrides: list[str] = field(default_factory=list)
    """Words behind `python train.py` that make it."""
    published: str | None = None
    """Method in published.yaml whose figures stand beside it."""

    def __post_init__(self) -> None:
        require_line("label", self.label)


@dataclass(kw_only=True)
class SectionConfig:
    """Rows under a common heading."""

    label: str
    """The heading."""
    overrides: list[str] = field(default_factory=list)
    """Words that come before those of each row."""
    rows: list[RowConfig] = field(default_factory=list)
    """Its rows; without any, those of the table."""

    def __post_init__(self) -> None:
        require_line("label", self.label)


@dataclass(kw_only=True)
class TableConfig:
    """A table: its rows, alone or in sections, and what is shown of them."""

    title: str
    """Caption."""
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    """Seeds of every row."""
    columns: list[str] = field(default_factory=lambda: ["test_top1"])
    """Names in `saformer.runs.columns`."""
    rows: list[RowConfig] = field(default_factory=list)
    """Rows of a table without sections, and of every section that has none of its own."""
    sections: list[SectionConfig] = field(default_factory=list)
    """Sections, one below the other."""

    def __post_init__(self) -> None:
        require_line("title", self.title)
        distinct = len(self.seeds) > 0 and len(set(self.seeds)) == len(self.seeds)
        require(distinct, "seeds", "be different numbers", self.seeds)
        filled = bool(self.rows) and not self.sections
        filled |= bool(self.sections) and all(part.rows or self.rows for part in self.sections)
        require(filled, "rows", "name at least one experiment", self.rows)

    def parts(self) -> list[SectionConfig]:
        """Its sections with their rows; one without a heading if there are none."""
        sections = self.sections or [SectionConfig(label="")]
        return [
            SectionConfig(label=part.label, overrides=part.overrides, rows=part.rows or self.rows)
            for part in sections
        ]


def table_names() -> list[str]:
    """Every table of conf/paper/, the package's and your own."""
    return list(options("paper"))


def table_path(name: str) -> Path:
    """The file of a table: a name in conf/paper/, or a YAML file anywhere.

    Raises:
        SettingError: There is none.
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
    """A YAML file as an object of `schema`.

    Raises:
        SettingError: It is not YAML, or not what the schema says; the message names the file.
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
    """The table that a file describes.

    Raises:
        SettingError: As of `read_settings`.
    """
    table = read_settings(path, TableConfig)
    assert isinstance(table, TableConfig)
    return table
