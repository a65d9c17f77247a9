"""Shared parts of the figures of a table: its rows as points, and the text of a caption."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes

from saformer.errors import SettingError
from saformer.results import render
from saformer.results.tables import Cell, Row, Table
from saformer.runs.columns import COLUMNS

ACCURACY, ENERGY = COLUMNS["test_top1"], COLUMNS["energy"]


@dataclass(frozen=True)
class Point:
    """A row of a table.

    Args:
        row: The row.
        label: Unique name within its section.
        accuracy: Test accuracy in percent of each seed.
        energy: Energy per image in mJ of each seed, with its convention.
    """

    row: Row
    label: str
    accuracy: Cell
    energy: Cell

    @property
    def dataset(self) -> str:
        """Name of the dataset."""
        return str(self.row.config["dataset"]["name"])

    @property
    def timesteps(self) -> int:
        """Timesteps T."""
        return int(self.row.config["timesteps"])


def rows(table: Table) -> list[Point]:
    """Every row of a table, with or without runs."""
    names = [(row.section, row.label) for row in table.rows]
    return [
        Point(
            row,
            # Rows of the same name differ in T: the table has a column for it, the label adds it.
            row.label if names.count(name) == 1 else f"{row.label}, T = {row.config['timesteps']}",
            row.cell(ACCURACY),
            row.cell(ENERGY),
        )
        for row, name in zip(table.rows, names, strict=True)
    ]


def points(table: Table) -> list[Point]:
    """The rows of a table that have test accuracies.

    Raises:
        SettingError: No row has a run, or the energies have different conventions.
    """
    found = [point for point in rows(table) if point.accuracy.values]
    if not found:
        raise SettingError(
            f"{table.outputs} holds no run of table {table.name}: saformer-table {table.name} "
            "prints the commands that make them"
        )
    named = {p.energy.convention: p.row.name for p in found if p.energy.convention}
    if len(named) > 1:
        said = ", ".join(f"{convention} ({row})" for convention, row in named.items())
        raise SettingError(
            f"energies under different conventions are not comparable: {said}. Choose one: add "
            f"energy.convention={next(iter(named))}"
        )
    return found


def by_dataset(found: Sequence[Point]) -> dict[str, list[Point]]:
    """Group points by dataset, because only points of one dataset are comparable."""
    groups: dict[str, list[Point]] = {}
    for point in found:
        groups.setdefault(point.dataset, []).append(point)
    return groups


def spread(cell: Cell) -> float:
    """Half the length of an error bar; NaN for a single seed, so that no bar is drawn."""
    return float("nan") if cell.std is None else cell.std


def energy_label(unit: str, convention: str) -> str:
    """Label of an energy axis."""
    return f"energy per image ({unit}),\nestimated, convention {convention}"


def convention(found: Sequence[Point]) -> str:
    """The convention of all energies of these points."""
    return next(point.energy.convention for point in found if point.energy.convention)


def caption(
    table: Table,
    shown: Sequence[Point],
    marks: str,
    energy: bool,
    sources: Mapping[str, int] | None = None,
) -> str:
    """The caption of a figure.

    Args:
        table: The table.
        shown: The points in the figure.
        marks: Sentences that explain the marks.
        energy: Whether the figure shows energies.
        sources: Number of each source of the published figures.
    """
    counts = sorted({len(point.accuracy.values) for point in shown})
    if counts == [1]:
        seeds = "Of one seed each, so without deviations."
    else:
        over = f"{counts[0]} to {counts[-1]}" if counts[1:] else f"{counts[0]}"
        single = ", without a bar for a single seed" if counts[0] == 1 else ""
        seeds = f"Means and sample standard deviations (bars) over {over} seeds{single}."
    said = [f"{table.title}.", seeds]
    if absent := sum(len(row.missing) for row in table.rows):
        wanted = sum(len(row.seeds) for row in table.rows)
        said.append(f"{absent} of {wanted} runs are missing.")
    said += [marks, render.PROTOCOL]
    if sources:
        said.append(render.PEERS)
    if energy:
        said.append(render.ENERGY)
    return " ".join(
        [*said, *(f"[{number}] {source}." for source, number in (sources or {}).items())]
    )


def least_span(ax: Axes, axis: Literal["x", "y"], span: float = 1.0) -> None:
    """Make an axis of accuracies at least one percentage point long, even for a single point."""
    low, high = getattr(ax.dataLim, f"interval{axis}")
    if high - low < span:
        middle = (low + high) / 2
        ax.set(**{f"{axis}lim": (middle - span / 2, middle + span / 2)})
