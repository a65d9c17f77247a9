"""How the figures look: made at the size they are printed, without pyplot and without global state.

Colours are Okabe and Ito's, told apart by the colour-blind; whatever a colour says, a marker or a
line style says too, for grey print.
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
"""Widths in inches: a column of a page, and all of its text."""
SIZE = 8
"""Of all text, in points: the least that is read easily in print."""
BLUE, ORANGE, GREEN, PURPLE = "#0072b2", "#e69f00", "#009e73", "#cc79a7"
SKY, VERMILION, BLACK, YELLOW = "#56b4e9", "#d55e00", "#000000", "#f0e442"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, BLACK)
"""Of what may be thin; yellow is seen in areas alone."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p", "h")
LINES = ("-", "--", "-.", ":", (0, (6, 1)))
DISTINCT = len(MARKERS)
"""So many things can be told apart in one figure, in grey print too."""
LOOKS = lcm(len(MARKERS), len(COLOURS))
"""So many pairs of a marker and a colour there are, before `look` begins anew."""
GREY, FAINT = "0.4", "0.9"

SETTINGS: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same figure on every machine
    **dict.fromkeys(("font.size", "axes.labelsize", "axes.titlesize", "legend.fontsize"), SIZE),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "figure.titlesize"), SIZE),
    "text.parse_math": False,  # a name with $ in it is no formula
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
    **dict.fromkeys(("axes.linewidth", "xtick.major.width", "ytick.major.width"), 0.6),
    "axes.formatter.useoffset": False,  # 97.1, not 0.1 + 97
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
    "pdf.fonttype": 42,  # whole TrueType fonts, which journals ask for
}
DPI = 300
PAD, GAP = 0.05, 0.08  # inches: from the edge, and between things below the panels


def printed() -> AbstractContextManager[None]:
    """Within it figures are made and saved as they are printed; afterwards nothing is changed."""
    return matplotlib.rc_context(SETTINGS)


def look(index: int, line: bool = True) -> dict[str, Any]:
    """Colour, marker and line style of the thing of an index, distinct for the first `DISTINCT`.

    Args:
        index: From 0.
        line: Whether a line joins the markers.
    """
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": LINES[index % len(LINES)] if line else "",
    }


def figure(width: float, height: float) -> Figure:
    """An empty figure.

    Args:
        width: In inches.
        height: In inches, without what `foot` adds.
    """
    fig = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(fig)
    return fig


def foot(fig: Figure, legends: Sequence[Sequence[Artist]], caption: str) -> None:
    """Put legends and a caption below the panels, and make the figure higher by as much.

    Args:
        fig: A figure whose panels are done.
        legends: Labelled artists of each legend, from top to bottom.
        caption: What must be known to read the figure; it is broken into lines here.
    """
    width, height = fig.get_size_inches()
    inches = fig.dpi_scale_trans
    at = PAD
    lines = wrapped(fig, caption, width - 2 * PAD)
    text = fig.text(PAD, at, "\n".join(lines), transform=inches, va="bottom", linespacing=1.2)
    at += _inches(fig, text)[1] + GAP
    for handles in reversed([one for one in legends if one]):
        # The most columns that fit, and no more than the same number of lines needs.
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
    """Text in lines of at most a width in inches, as they will be drawn."""
    lines: list[str] = []
    fits = int(width * 72 / SIZE)  # so many characters, were they as wide as they are high
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and (len(longer) <= fits or text_width(fig, longer) <= width):
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def text_width(fig: Figure, text: str) -> float:
    """Inches that a line of text takes."""
    probe = fig.text(0, 0, text)
    width = _inches(fig, probe)[0]
    probe.remove()
    return width


def save(fig: Figure, folder: Path, name: str) -> list[Path]:
    """Write `<name>.png` and `<name>.pdf`; the same figure gives the same bytes.

    Raises:
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells of each table of a font
    png, pdf = folder / f"{name}.png", folder / f"{name}.pdf"
    fig.savefig(png, dpi=DPI, metadata={"Software": None})
    fig.savefig(pdf, metadata={"CreationDate": None})
    return [png, pdf]


def renderer(fig: Figure) -> RendererAgg:
    """What measures text."""
    canvas = fig.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    found: RendererAgg = canvas.get_renderer()
    return found


def light_grid(ax: Axes, axis: Literal["both", "x", "y"] = "both") -> None:
    """Faint lines behind the data that lead the eye to the ticks."""
    ax.set_axisbelow(True)
    ax.grid(axis=axis, color=FAINT, linewidth=0.6)


def _row_by_row(handles: Sequence[Artist], columns: int) -> list[Artist]:
    """In the order in which a legend, which fills columns, shows them in rows."""
    return [one for column in range(columns) for one in handles[column::columns]]


def _no_handles(handles: Sequence[Artist]) -> dict[str, Any]:
    """A legend of invisible artists is its texts alone."""
    shown = any(handle.get_visible() for handle in handles)
    return {} if shown else {"handlelength": 0, "handletextpad": 0}


def _inches(fig: Figure, artist: Artist) -> tuple[float, float]:
    box = artist.get_window_extent(renderer(fig))
    return box.width / fig.dpi, box.height / fig.dpi
