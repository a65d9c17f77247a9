"""Ablations: the accuracy of every row with its seeds, and its difference from the first row.

The figure draws dots instead of bars. Bars must start at zero, where a difference of one percent is
invisible, and truncated bars would mislead the reader.
"""

from collections import Counter

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from saformer import figure_style as style
from saformer.results.plots.points import (
    Point,
    by_dataset,
    caption,
    least_span,
    points,
    rows,
    spread,
)
from saformer.results.tables import Table

Alike = tuple[str, int]
"""Dataset and T of a row."""
LINE, ROOM = 0.16, 0.6  # inches: height of a row, and of axis and title of a panel
BELOW, MINUS = 0.3, "\u2212"  # distance in lines from a mean down to its seeds; a minus sign
MARKS = "Diamonds: means; the small dots below: each seed."
NUMBERS = (
    " Numbers: difference of the mean from the row marked ref. (dashed), the first of the table "
    "with the same data and T, in percentage points."
)
NONE = " None: not run yet."


def bars(table: Table) -> Figure:
    """Test accuracy of each row under the table's headings; one panel for each dataset.

    Panels with the same rows are side by side.

    Raises:
        SettingError: There is no run.
    """
    shown = points(table)
    # If a section has any run, all its rows get a line, so that all panels have the same order.
    begun = {(point.dataset, point.row.section) for point in shown}
    lines = [point for point in rows(table) if (point.dataset, point.row.section) in begun]
    bands = _bands(list(by_dataset(lines).items()))
    columns = max(map(len, bands))
    heights = [len(_lines(band[0][1])) for band in bands]
    longest = max((point.label for point in lines), key=len)
    fig = style.figure(style.PAGE, LINE * sum(heights) + ROOM * len(bands))
    if columns == 1 and style.text_width(fig, longest) < style.COLUMN / 3:
        fig.set_figwidth(style.COLUMN)
    grid = fig.add_gridspec(len(bands), columns, height_ratios=heights)
    references = _references(table, shown)
    for i, band in enumerate(bands):
        for j, (dataset, group) in enumerate(band):
            ax = fig.add_subplot(grid[i, j])
            _panel(ax, group, references, named=j == 0)
            ax.set_title(dataset)
    marks = MARKS + NUMBERS * bool(references) + NONE * (len(shown) < len(lines))
    style.foot(fig, [], caption(table, shown, marks, energy=False))
    return fig


def _lines(group: list[Point]) -> list[Point | str]:
    """Lines of a panel from top to bottom: headings, and the points below them."""
    lines: list[Point | str] = []
    for index, point in enumerate(group):
        heading = point.row.section
        if heading and (not index or heading != group[index - 1].row.section):
            lines.append(heading)
        lines.append(point)
    return lines


def _bands(panels: list[tuple[str, list[Point]]]) -> list[list[tuple[str, list[Point]]]]:
    """Put two panels side by side if their lines have the same names."""

    def names(group: list[Point]) -> list[str]:
        return [line.label if isinstance(line, Point) else "" for line in _lines(group)]

    bands: list[list[tuple[str, list[Point]]]] = []
    for panel in panels:
        if bands and len(bands[-1]) == 1 and names(bands[-1][0][1]) == names(panel[1]):
            bands[-1].append(panel)
        else:
            bands.append([panel])
    return bands


def _references(table: Table, shown: list[Point]) -> dict[Alike, Point]:
    """The first row of each dataset and T, if it has a run and other rows have runs too."""
    firsts: dict[Alike, Point] = {}
    for point in rows(table):
        firsts.setdefault(_alike(point), point)
    several = Counter(map(_alike, shown))
    return {a: first for a, first in firsts.items() if first.accuracy.values and several[a] > 1}


def _alike(point: Point) -> Alike:
    return point.dataset, point.timesteps


def _panel(ax: Axes, group: list[Point], references: dict[Alike, Point], named: bool) -> None:
    lines = _lines(group)
    side = ax.get_yaxis_transform()  # x as a share of the panel's width, y in lines
    ticks = [(y, line.label) for y, line in enumerate(lines) if isinstance(line, Point)]
    for y, line in enumerate(lines):
        if isinstance(line, str):
            ax.text(0.01, y, line, transform=side, va="center", weight="bold")
            continue
        mean, reference = line.accuracy.mean, references.get(_alike(line))
        if reference is not None:
            zero = reference.accuracy.mean or 0.0
            ax.plot([zero, zero], [y - 0.5, y + 0.5], "--", color="black", linewidth=0.7, zorder=1)
        if mean is None:
            text = "none"
        else:
            _dots(ax, y, line)
            text = "" if reference is None else f"{mean - zero:+.2f}".replace("-", MINUS)
        if reference is not None and reference.row is line.row:
            text = "ref."
        ax.text(1.02, y, text, transform=side, va="center_baseline")
    ax.set_ylim(len(lines) - 0.5, -0.5)
    ax.set_yticks([y for y, _ in ticks], [label if named else "" for _, label in ticks])
    ax.margins(x=0.08)
    least_span(ax, "x")
    ax.set_xlabel("test accuracy (%)")
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    style.light_grid(ax)


def _dots(ax: Axes, y: float, point: Point) -> None:
    seeds = list(point.accuracy.values.values())
    if len(seeds) > 1:
        ax.plot(seeds, [y + BELOW] * len(seeds), "o", color=style.GREY, markersize=2)
    mean, std = point.accuracy.mean or 0.0, spread(point.accuracy)
    ax.errorbar(mean, y, xerr=std, fmt="D", color=style.COLOURS[0], label=point.row.name)
