"""Accuracy over energy: every row of a table, the Pareto front, and what is published."""

from collections.abc import Mapping, Sequence
from string import ascii_lowercase
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter
from matplotlib.transforms import Transform

from saformer import figure_style as style
from saformer.errors import SettingError
from saformer.results.plots.peers import Peer, peers
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
from saformer.results.tables import Table

FEW, FEWER = 20, 8  # points in half the width of a page, and in a figure for a column
RATIO = 8  # largest over smallest energy, from which on the axis is logarithmic
STEP, COLUMNS = 0.04, 6
"""Right of a panel stand accuracies without an energy, in columns of so much of its width."""
MARKS = (
    "Line: Pareto front of the means; filled markers are on it: no other network of the panel is "
    "as accurate with less energy, or more accurate with as much."
)
PUBLISHED = " Letters: published; energies are under the conventions of their sources."
ASIDE = " Letters right of a panel: accuracies without an energy."
Looks = dict[tuple[str, str], dict[str, Any]]
"""Colour and marker of each section and label."""


def front(costs: Sequence[float], gains: Sequence[float]) -> list[int]:
    """Points that no other dominates, by rising cost.

    A point dominates another that costs no less and gains no more, unless both are equal.
    """
    order = sorted(range(len(costs)), key=lambda i: (costs[i], -gains[i]))
    kept: list[int] = []
    for i in order:
        last = kept[-1] if kept else None
        if (
            last is None
            or gains[i] > gains[last]
            or (costs[i], gains[i])
            == (
                costs[last],
                gains[last],
            )
        ):
            kept.append(i)
    return kept


def pareto(table: Table) -> Figure:
    """Test accuracy over estimated energy, a panel for each dataset, a legend below.

    Raises:
        SettingError: No row has both, their energies do not compare, or there are more rows than
            markers and colours tell apart.
    """
    shown = [point for point in points(table) if point.energy.values]
    if not shown:
        raise SettingError(f"no run of table {table.name} has counted energy: energy=exact counts")
    groups = by_dataset(shown)
    cited: dict[str, int] = {}
    known = {dataset: peers(table, dataset, cited) for dataset in groups}
    letters = _letters([peer for of in known.values() for peer in of])
    sections = list(dict.fromkeys(point.row.section for point in shown))
    if all(len({point.row.section for point in group}) == 1 for group in groups.values()):
        sections = []  # the titles of the panels name them
    looks, legends = _looks(table.name, shown, sections)

    fig, axes = _panels({name: len(groups[name]) + len(known[name]) for name in groups})
    for dataset, group in groups.items():
        only = "" if sections else group[0].row.section
        axes[dataset].set_title(f"{only} ({dataset})" if only else dataset)
        _panel(axes[dataset], group, known[dataset], looks, letters)

    marks = MARKS
    if letters:
        texts = [f"{letter}  {text}" for text, letter in letters.items()]
        legends.append([Line2D([], [], visible=False, label=text) for text in texts])
        marks += PUBLISHED
        marks += ASIDE * any(peer.energy is None for of in known.values() for peer in of)
    if without := len(points(table)) - len(shown):
        marks += f" Not drawn: {without} rows whose energy was not counted."
    style.foot(fig, legends, caption(table, shown, marks, True, cited))
    return fig


def _looks(name: str, shown: list[Point], sections: list[str]) -> tuple[Looks, list[list[Line2D]]]:
    """The look of each point by its section and label, and the legends that explain them.

    A label has a marker and a colour. Where labels stand in several sections of a panel, the colour
    is that of the section instead.

    Args:
        name: Name of the table.
        shown: The points.
        sections: Those that the titles of the panels do not name.
    """
    stand: dict[str, list[str]] = {}
    for point in shown:
        stand.setdefault(point.label, []).append(point.row.section)
    labels = list(stand)
    crossed = bool(sections) and any(len(set(within)) > 1 for within in stand.values())
    _enough(name, "labels", len(labels), style.DISTINCT if crossed else style.LOOKS)
    _enough(name, "sections", len(sections) * crossed, len(style.COLOURS))
    looks: Looks = {}
    for label, within in stand.items():
        for section in within:
            looks[section, label] = style.look(labels.index(label), line=False)
            if crossed:
                looks[section, label]["color"] = style.COLOURS[sections.index(section)]
    if not crossed:
        named = {label: f"{within[0]}: {label}" for label, within in stand.items()}
        texts = named if sections else dict(zip(labels, labels, strict=True))
        return looks, [[_entry(looks[stand[label][0], label], texts[label]) for label in labels]]
    shapes = [_entry(looks[stand[label][0], label] | {"color": "black"}, label) for label in labels]
    colours = [_entry({"color": style.COLOURS[i]}, text) for i, text in enumerate(sections)]
    return looks, [shapes, colours]


def _enough(name: str, things: str, count: int, most: int) -> None:
    if count > most:
        raise SettingError(
            f"table {name} has {count} {things}, and a figure tells {most} apart: describe them in "
            "tables of their own"
        )


def _entry(look: Mapping[str, Any], text: str) -> Line2D:
    """An entry of a legend: a marker, or a line where a look has none."""
    return Line2D([], [], **{"linewidth": 3.0, **look}, label=text)


def _letters(known: list[Peer]) -> dict[str, str]:
    """A letter for each published network, by what the legend says of it."""
    texts = dict.fromkeys(peer.text() for peer in known)
    return {text: ascii_lowercase[i % 26] * (1 + i // 26) for i, text in enumerate(texts)}


def _panels(crowds: dict[str, int]) -> tuple[Figure, dict[str, Axes]]:
    """A panel for each dataset, two beside each other where few points are in them.

    Args:
        crowds: How many points are in each.
    """
    lines: list[list[str]] = []
    for dataset, crowd in crowds.items():
        beside = lines and len(lines[-1]) == 1 and crowds[lines[-1][0]] <= FEW
        if crowd <= FEW and beside:
            lines[-1].append(dataset)
        else:
            lines.append([dataset])
    column = len(crowds) == 1 and max(crowds.values()) <= FEWER
    wide = {name for name, crowd in crowds.items() if crowd > FEW or not (crowds.keys() - {name})}
    heights = [3.0 if line[0] in wide and not column else 2.3 for line in lines]
    fig = style.figure(style.COLUMN if column else style.PAGE, sum(heights))
    grid = fig.add_gridspec(len(lines), 1 if column else 2, height_ratios=heights)
    axes = {}
    for i, line in enumerate(lines):
        for j, dataset in enumerate(line):
            axes[dataset] = fig.add_subplot(grid[i, :] if dataset in wide else grid[i, j])
    return fig, axes


def _panel(
    ax: Axes, group: list[Point], known: list[Peer], looks: Looks, letters: dict[str, str]
) -> None:
    """Draw one dataset."""
    energies = [point.energy.mean or 0.0 for point in group]
    every = [*energies, *(peer.energy for peer in known if peer.energy is not None)]
    unit, factor = ENERGY.unit(every)
    accuracies = [point.accuracy.mean or 0.0 for point in group]
    best = front(energies, accuracies)
    ax.plot(
        [energies[i] * factor for i in best],
        [accuracies[i] for i in best],
        drawstyle="steps-post",
        color="black",
        linewidth=0.8,
        label="front",
    )
    for i, point in enumerate(group):
        look = looks[point.row.section, point.label]
        ax.errorbar(
            energies[i] * factor,
            accuracies[i],
            xerr=spread(point.energy) * factor,
            yerr=spread(point.accuracy),
            elinewidth=0.7,
            markerfacecolor=look["color"] if i in best else "white",
            label=point.row.name,
            zorder=3,
            **look,
        )
    aside = sorted((p for p in known if p.energy is None), key=lambda peer: peer.accuracy)
    for peer in known:
        letter = letters[peer.text()]
        if peer.energy is not None:
            _letter(ax, letter, peer.energy * factor, peer.accuracy, ax.transData)
        else:  # across in parts of the panel, up in percent
            # Next to each other, so that neighbours in accuracy do not cover each other.
            x = 1 + STEP * (1 + aside.index(peer) % COLUMNS)
            _letter(ax, letter, x, peer.accuracy, ax.get_yaxis_transform())
    ax.margins(0.12, 0.15)
    least_span(ax, "y")
    if min(every) > 0 and max(every) / min(every) > RATIO:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel(energy_label(unit, convention(group)))
    ax.set_ylabel("test accuracy (%)")
    style.light_grid(ax)


def _letter(ax: Axes, letter: str, x: float, y: float, transform: Transform) -> None:
    """A letter in the place of a marker; the limits of the axes make room for it as for one."""
    ax.plot(x, y, "", transform=transform, label="published")
    text = ax.text(x, y, letter, transform=transform, ha="center", va="center")
    text.set(color=style.GREY, zorder=4)
