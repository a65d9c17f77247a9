"""Style of the figures: they have their printed size and use no pyplot and no global state.

The colours are Okabe and Ito's, which colour-blind readers can distinguish. Every difference in
colour is also a difference in marker or line style, for grey print.
"""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from math import lcm
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure

COLUMN, PAGE = 3.4, 7.0
"""Widths in inches: one column of a page, and the whole text width."""
SIZE = 8
"""Size of all text in points, the smallest that is easy to read in print."""
BLUE, ORANGE, GREEN, PURPLE = "#0072b2", "#e69f00", "#009e73", "#cc79a7"
SKY, VERMILION, BLACK, YELLOW = "#56b4e9", "#d55e00", "#000000", "#f0e442"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, BLACK)
"""Colours of lines and markers; yellow can only be seen in areas."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p", "h")
LINES = ("-", "--", "-.", ":", (0, (6, 1)))
DISTINCT = len(MARKERS)
"""Number of things that a reader can distinguish in one figure, in grey print too."""
LOOKS = lcm(len(MARKERS), len(COLOURS))
"""Number of pairs of a marker and a colour, after which `look` repeats itself."""
GREY, FAINT = "0.4", "0.9"

SETTINGS: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # part of matplotlib, so figures are equal on all machines
    **dict.fromkeys(("font.size", "axes.labelsize", "axes.titlesize", "legend.fontsize"), SIZE),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "figure.titlesize"), SIZE),
    "text.parse_math": False,  # a $ in a name does not start a formula
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
    **dict.fromkeys(("axes.linewidth", "xtick.major.width", "ytick.major.width"), 0.6),
    "axes.formatter.useoffset": False,  # ticks show 97.1, not 0.1 with an offset of 97
    "lines.linewidth": 1.0,
    "lines.markersize": 4.5,
    "errorbar.capsize": 1.5,
    **dict.fromkeys(("legend.frameon", "legend.fancybox"), False),
    **{
        "legend.borderpad": 0,
        "legend.borderaxespad": 0,
        "legend.columnspacing": 1.2,
        "legend.labelspacing": 0.35,
    },
    "pdf.fonttype": 42,  # embed TrueType fonts, because journals require it
}
DPI = 300
PAD, GAP = 0.05, 0.08  # inches: margin at the edge, and space between items below the panels


def printed() -> AbstractContextManager[None]:
    """Context in which to make and save figures; it restores matplotlib's settings at its end."""
    return matplotlib.rc_context(SETTINGS)


def look(index: int, line: bool = True) -> dict[str, Any]:
    """Colour, marker and line style for an index; the first `DISTINCT` ones are all different.

    Args:
        index: Index from 0.
        line: Whether a line connects the markers.
    """
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": LINES[index % len(LINES)] if line else "",
    }


def figure(width: float, height: float) -> Figure:
    """Make an empty figure.

    Args:
        width: Width in inches.
        height: Height in inches, without the part that `foot` adds.
    """
    fig = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(fig)
    return fig


def foot(fig: Figure, legends: Sequence[Sequence[Artist]], caption: str) -> None:
    """Add legends and a caption below the panels, and increase the height of the figure for them.

    Args:
        fig: A figure with finished panels.
        legends: Labelled artists of each legend, from top to bottom.
        caption: Text that explains the figure; this function breaks it into lines.
    """
    width, height = fig.get_size_inches()
    inches = fig.dpi_scale_trans
    at = PAD
    lines = wrapped(fig, caption, width - 2 * PAD)
    text = fig.text(PAD, at, "\n".join(lines), transform=inches, va="bottom", linespacing=1.2)
    at += _inches(fig, text)[1] + GAP
    for handles in reversed([artists for artists in legends if artists]):
        # Use the largest number of columns that fits; skip numbers that do not save a line.
        for columns in sorted({-(-len(handles) // n) for n in range(1, len(handles) + 1)})[::-1]:
            legend = fig.legend(
                handles=_row_by_row(handles, columns),
                ncols=columns,
                loc="lower left",
                bbox_to_anchor=(PAD, at),
                bbox_transform=inches,
                **_no_handles(handles),
            )
            size = _inches(fig, legend)
            if size[0] <= width - 2 * PAD or columns == 1:
                break
            legend.remove()
        at += size[1] + GAP
    fig.set_size_inches(width, height + at)
    engine = fig.get_layout_engine()
    assert engine is not None
    engine.set(rect=(0, at / (height + at), 1, height / (height + at)))  # type: ignore[call-arg]


def wrapped(fig: Figure, text: str, width: float) -> list[str]:
    """Break text into lines whose drawn width is at most `width` inches."""
    lines: list[str] = []
    fits = int(width * 72 / SIZE)  # this many characters always fit: they are narrower than high
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and (len(longer) <= fits or text_width(fig, longer) <= width):
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def text_width(fig: Figure, text: str) -> float:
    """Width of a line of text in inches."""
    probe = fig.text(0, 0, text)
    width = _inches(fig, probe)[0]
    probe.remove()
    return width


def save(fig: Figure, folder: Path, name: str) -> list[Path]:
    """Write `<name>.png` and `<name>.pdf`; equal figures give equal bytes.

    Raises:
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it logs every table of a font
    png, pdf = folder / f"{name}.png", folder / f"{name}.pdf"
    fig.savefig(png, dpi=DPI, metadata={"Software": None})
    fig.savefig(pdf, metadata={"CreationDate": None})
    return [png, pdf]


def renderer(fig: Figure) -> RendererAgg:
    """The renderer of a figure, which measures text."""
    canvas = fig.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    found: RendererAgg = canvas.get_renderer()
    return found


def light_grid(ax: Axes, axis: Literal["both", "x", "y"] = "both") -> None:
    """Draw faint grid lines behind the data."""
    ax.set_axisbelow(True)
    ax.grid(axis=axis, color=FAINT, linewidth=0.6)


def _row_by_row(handles: Sequence[Artist], columns: int) -> list[Artist]:
    """Reorder artists so that a legend, which fills columns first, shows them row by row."""
    return [artist for column in range(columns) for artist in handles[column::columns]]


def _no_handles(handles: Sequence[Artist]) -> dict[str, Any]:
    """Arguments that remove the space for symbols from a legend of invisible artists."""
    shown = any(handle.get_visible() for handle in handles)
    return {} if shown else {"handlelength": 0, "handletextpad": 0}


def _inches(fig: Figure, artist: Artist) -> tuple[float, float]:
    box = artist.get_window_extent(renderer(fig))
    return box.width / fig.dpi, box.height / fig.dpi
