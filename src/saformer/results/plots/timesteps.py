"""Accuracy and energy against T, for rows of a table that differ only in timesteps."""

import json
import re
from collections import Counter
from itertools import pairwise
from math import log2

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from saformer import figure_style as style
from saformer.errors import SettingError
from saformer.results.plots.points import (
    ENERGY,
    Point,
    by_dataset,
    caption,
    convention,
    energy_label,
    least_span,
    points,
    spread,
)
from saformer.results.tables import Row, Table
from saformer.runs.identity import defining

APART = 0.6  # width over which the points of one T are spread, as a share of the T spacing
MARKS = "A line is one network, trained anew at each T."
ASIDE = " Points of a T are set apart sideways."
Lines = dict[str, list[Point]]


def timesteps(table: Table) -> Figure:
    """Test accuracy (above) and estimated energy (below) against T; one column for each dataset.

    Raises:
        SettingError: No rows differ only in T, or the energies are not comparable.
    """
    found = points(table)
    networks = _networks(table)
    groups: dict[str, Lines] = {}
    for dataset, group in by_dataset(found).items():
        for point in sorted(group, key=lambda point: point.timesteps):
            if name := networks.get(_same(point.row.config)):
                groups.setdefault(dataset, {}).setdefault(name, []).append(point)
    if not groups:
        raise SettingError(
            f"table {table.name} has no runs of rows that differ in timesteps alone: timesteps "
            "draws accuracy over T"
        )
    names = list(dict.fromkeys(name for lines in groups.values() for name in lines))
    if len(names) > style.DISTINCT:
        raise SettingError(
            f"table {table.name} has {len(names)} networks at several T, and a figure tells "
            f"{style.DISTINCT} apart: describe them in tables of their own"
        )
    shown = [point for lines in groups.values() for line in lines.values() for point in line]
    energy = any(point.energy.values for point in shown)
    high = 2 if energy else 1
    fig = style.figure(style.PAGE if len(groups) > 1 else style.COLUMN, 2.0 * high)
    axes = fig.subplots(high, len(groups), sharex="col", squeeze=False)
    for column, (dataset, lines) in enumerate(groups.items()):
        of = [point for line in lines.values() for point in line]
        _over_t(axes[0, column], lines, names, "accuracy", 1.0)
        least_span(axes[0, column], "y")
        axes[0, column].set_title(dataset)
        axes[0, column].set_ylabel("test accuracy (%)")
        if energy:
            unit, factor = ENERGY.unit(point.energy.mean for point in of)
            _over_t(axes[1, column], lines, names, "energy", factor)
            axes[1, column].set_ylabel(energy_label(unit, convention(of)))
        axes[-1, column].set_xlabel("timesteps T")
    handles = [Line2D([], [], **style.look(i), label=name) for i, name in enumerate(names)]
    marks = MARKS + ASIDE * any(len(lines) > 1 for lines in groups.values())
    style.foot(fig, [handles], caption(table, shown, marks, energy))
    return fig


def _networks(table: Table) -> dict[str, str]:
    """Names of the networks that a table has at several T, by their settings.

    Raises:
        SettingError: Two networks of one dataset have the same name.
    """
    steps: dict[str, set[int]] = {}
    firsts: dict[str, Row] = {}
    for row in table.rows:
        same = _same(row.config)
        steps.setdefault(same, set()).add(row.config["timesteps"])
        firsts.setdefault(same, row)
    labels = {
        same: (row, _without_t(row.section), _without_t(row.label))
        for same, row in firsts.items()
        if len(steps[same]) > 1
    }

    def called(row: Row, name: str) -> tuple[str, str]:
        return str(row.config["dataset"]["name"]), name

    several = Counter(called(row, label) for row, _, label in labels.values())
    names = {}
    for same, (row, section, label) in labels.items():
        short = several[called(row, label)] == 1 or not section
        names[same] = (label if short else f"{section}: {label}") if label else section or row.name
    for (_, name), count in Counter(called(firsts[s], name) for s, name in names.items()).items():
        if count > 1:
            raise SettingError(
                f"{count} networks of table {table.name} are called '{name}': give their rows "
                "labels of their own"
            )
    return names


def _same(config: dict[str, object]) -> str:
    """All settings that define a network and its training, except T."""
    settings = {name: value for name, value in defining(config).items() if name != "timesteps"}
    return json.dumps(settings, sort_keys=True, default=str)


def _without_t(name: str) -> str:
    """Remove a part such as `T = 4` from a label or heading."""
    return re.sub(r"[,:;]?\s*\bT\s*=\s*\d+", "", name).strip(" ,:;")


def _over_t(ax: Axes, lines: Lines, names: list[str], what: str, factor: float) -> None:
    steps = sorted({point.timesteps for line in lines.values() for point in line})
    least = min((log2(b / a) for a, b in pairwise(steps)), default=1.0)
    for place, (name, line) in enumerate(lines.items()):
        # Shift by a factor, because the axis is logarithmic.
        aside = 2 ** (APART * least * ((place + 0.5) / len(lines) - 0.5))
        cells = [getattr(point, what) for point in line]
        drawn = [(p, c) for p, c in zip(line, cells, strict=True) if c.values]
        if not drawn:
            continue
        ax.errorbar(
            [point.timesteps * aside for point, _ in drawn],
            [cell.mean * factor for _, cell in drawn],
            [spread(cell) * factor for _, cell in drawn],
            elinewidth=0.7,
            label=name,
            **style.look(names.index(name)),
        )
    if len(lines) > 1:
        half = 2 ** (APART * least / 2)
        for step in steps:
            ax.axvspan(step / half, step * half, color=style.FAINT, alpha=0.6, zorder=0)
    ax.set_xscale("log", base=2)
    ax.set_xticks(steps, [str(step) for step in steps])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.margins(0.08, 0.1)
    style.light_grid(ax, "y")
