"""Accuracy over energy: every row of a table, the Pareto front, and what is published."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from saformer import figure_style as style
from saformer.errors import SettingError
from saformer.results.plots.labels import Labels
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
EDGE = 0.97  # of the width of a panel: from there on lie accuracies without an energy
ROOM = 1.15  # of its width, that they get
MARKS = (
    "Line: Pareto front of the means; filled markers are on it: no other network of the panel is "
    "as accurate with less energy, or more accurate with as much."
)
PUBLISHED = " Grey: published; energies are under the conventions of their sources."
DASHES = " Dashes at the right edge: accuracies without an energy."


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
    """Test accuracy over estimated energy, a panel for each dataset.

    Points are named where their names find room, and numbered otherwise.

    Raises:
        SettingError: No row has both, or their energies do not compare.
    """
    shown = [point for point in points(table) if point.energy.values]
    if not shown:
        raise SettingError(f"no run of table {table.name} has counted energy: energy=exact counts")
    fig, placed = _draw(table, shown, numbered=False)
    return fig if placed else _draw(table, shown, numbered=True)[0]


def _draw(table: Table, shown: list[Point], numbered: bool) -> tuple[Figure, bool]:
    """The figure, and whether its labels are where they should be."""
    groups = by_dataset(shown)
    cited: dict[str, int] = {}
    known = {dataset: peers(table, dataset, cited) for dataset in groups}
    sections = list(dict.fromkeys(point.row.section for point in shown))
    if all(len({point.row.section for point in group}) == 1 for group in groups.values()):
        sections = []  # the titles of the panels name them
    key = _key(shown, [peer.method for of in known.values() for peer in of], sections)
    numbers = {label: str(number) for number, label in enumerate(key, start=1)}
    names = numbers if numbered else {label: label for label in key}

    fig, axes = _panels({name: len(groups[name]) + len(known[name]) for name in groups})
    labels = []
    for dataset, group in groups.items():
        only = "" if sections else group[0].row.section
        axes[dataset].set_title(f"{only} ({dataset})" if only else dataset)
        factor = _panel(axes[dataset], group, known[dataset], sections)
        labels.append(_labels(axes[dataset], group, known[dataset], factor, names))

    explained = [
        Line2D([], [], visible=False, label=f"{numbers[label]}  {text}")
        for label, text in key.items()
        if numbered
    ]
    handles = [
        Line2D([], [], **style.look(i, line=False), label=section)
        for i, section in enumerate(sections)
    ]
    marks = MARKS
    if energies := [peer.energy for of in known.values() for peer in of]:
        cross = "x" if any(energies) else "_"
        handles.append(Line2D([], [], color=style.GREY, marker=cross, ls="", label="published"))
        marks += PUBLISHED + DASHES * (None in energies)
    if without := len(points(table)) - len(shown):
        marks += f" Not drawn: {without} rows whose energy was not counted."
    style.foot(fig, [explained, handles], caption(table, shown, marks, True, cited))
    fig.draw_without_rendering()  # the layout must stand before labels find their places
    return fig, all([one.place() for one in labels])


def _key(shown: list[Point], methods: list[str], sections: list[str]) -> dict[str, str]:
    """What each label stands for: with its section, where it has but one of several."""
    texts = {}
    for point in shown:
        of = {other.row.section for other in shown if other.label == point.label}
        alone = sections and len(of) == 1 and point.row.section
        texts[point.label] = f"{point.row.section}: {point.label}" if alone else point.label
    return texts | {method: method for method in methods if method not in texts}


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


def _panel(ax: Axes, group: list[Point], known: list[Peer], sections: list[str]) -> float:
    """Draw one dataset; returns the factor from mJ to the unit of its energy axis."""
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
        look = style.look(sections.index(point.row.section) if sections else 0, line=False)
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
    grey: dict[str, Any] = {"color": style.GREY, "label": "published"}
    for peer in known:
        if peer.energy is None:
            side = ax.get_yaxis_transform()  # across in parts of the panel, up in percent
            ax.plot([EDGE, 1], [peer.accuracy] * 2, transform=side, **grey)
        else:
            ax.plot(peer.energy * factor, peer.accuracy, "x", **grey)
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
    return factor


def _labels(
    ax: Axes, group: list[Point], known: list[Peer], factor: float, names: dict[str, str]
) -> Labels:
    ours = [((p.energy.mean or 0.0) * factor, p.accuracy.mean or 0.0) for p in group]
    crosses = [(p.energy * factor, p.accuracy, p) for p in known if p.energy is not None]
    dashes = [peer for peer in known if peer.energy is None]
    ax.set_ylim(ax.get_ylim())
    ax.set_xlim(ax.get_xlim())  # before places are told by it, because it is found when asked for
    right = _across(ax, ROOM if dashes else 1)
    ax.set_xlim(right=right)
    best = [ours[i] for i in front(*zip(*ours, strict=True))]
    bars = []
    for (x, y), (next_x, next_y) in pairwise(best):
        bars += [((x, y), (next_x, y)), ((next_x, y), (next_x, next_y))]
    for (x, y), point in zip(ours, group, strict=True):
        across, up = (point.energy.std or 0) * factor, point.accuracy.std or 0
        bars += [((x - across, y), (x + across, y)), ((x, y - up), (x, y + up))]
    edge = _across(ax, EDGE)
    bars += [((edge, peer.accuracy), (right, peer.accuracy)) for peer in dashes]
    return Labels(
        ax,
        [*ours, *((x, y) for x, y, _ in crosses)],
        [*(names[p.label] for p in group), *(p.text(names[p.method]) for _, _, p in crosses)],
        ["black"] * len(ours) + [style.GREY] * len(crosses),
        [(edge, peer.accuracy) for peer in dashes],
        [peer.text(names[peer.method]) for peer in dashes],
        bars,
    )


def _across(ax: Axes, part: float) -> float:
    """Where on the energy axis a part of the width of a panel is."""
    return float(ax.transData.inverted().transform(ax.transAxes.transform((part, 0)))[0])
