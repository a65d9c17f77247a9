"""Draw docs/architecture.png, the model by default: `python scripts/draw_architecture.py`."""
# ruff: noqa: RUF001 (the multiplication sign is meant)

from pathlib import Path as File
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.path import Path

OUT = File(__file__).parents[1] / "docs" / "architecture.png"
WIDTH, HEIGHT = 900, 806  # units of the drawing: pixels in README; the file has twice as many
INK, REAL, SPIKES = "#222222", "#222222", "#d55e00"
CENTRED: dict[str, Any] = {"ha": "center", "va": "center", "color": INK, "linespacing": 1.25}
NOTE: dict[str, Any] = {"size": 10.5, "color": "#50565f", "ha": "left"}
BOLD: dict[str, Any] = {"size": 11.5, "weight": "bold", "ha": "left"}

# Colour and corner radius of each kind of box: derived from Okabe-Ito, and apart in grey too.
Kind: TypeAlias = tuple[str, int]
WEIGHTS, NEURON, GATE = ("#a3d3f2", 4), ("#fbe183", 12), ("#e6966b", 0)
OTHER, ZOOM = ("#ffffff", 4), ("#444b57", 4)
KINDS = {"conv": WEIGHTS, "linear": WEIGHTS, "$W": WEIGHTS, "SN": NEURON}
KINDS |= {"AND": GATE, "Σ": GATE, "block": ZOOM, "SASA": ZOOM}


def text(ax: Axes, x: float, y: float, label: str, size: float = 11.5, **style: Any) -> None:
    """Text, centred unless told otherwise; its size is in pixels of the drawing."""
    style = {**CENTRED, **style}
    if "\n" not in label:  # on one line the letters' feet do not count
        y, style["va"] = y + 0.36 * size, "baseline"
    ax.text(x, y, label, fontsize=size * 0.96, **style)


def box(ax: Axes, x: float, y: float, label: str, kind: Kind, w: int, h: float) -> None:
    """A labelled box centred on (x, y); a label that ends with * gives it a dashed edge."""
    radius, edge = min(kind[1], h / 2), "--" if label.endswith("*") else "-"
    shape = f"round,pad=0,rounding_size={radius}" if radius else "square,pad=0"
    patch = FancyBboxPatch((x - w / 2, y - h / 2), w, h, shape, fc=kind[0], ec=INK, ls=edge)
    ax.add_patch(patch).set(lw=0.9, zorder=3)
    text(ax, x, y, label.rstrip("*"), color="white" if kind is ZOOM else INK, zorder=4)


def area(ax: Axes, x: float, y: float, width: float, height: float, colour: str) -> None:
    """A rounded area without a border, from its upper left corner."""
    patch = FancyBboxPatch((x, y), width, height, "round,pad=0,rounding_size=8")
    ax.add_patch(patch).set(fc=colour, ec="none", zorder=0)


def wire(ax: Axes, colour: str, *points: tuple[float, float]) -> None:
    """An arrow through the points, with rounded corners."""
    p = np.array(points, dtype=float)
    path, codes = [p[0]], [Path.MOVETO]
    for before, corner, after in zip(p, p[1:], p[2:], strict=False):
        start = corner - 8 * (corner - before) / np.linalg.norm(corner - before)
        path += [start, corner, corner + 8 * (after - corner) / np.linalg.norm(after - corner)]
        codes += [Path.LINETO, Path.CURVE3, Path.CURVE3]
    whole = Path([*path, p[-1]], [*codes, Path.LINETO])
    patch = FancyArrowPatch(path=whole, arrowstyle="-|>,head_length=6.4,head_width=3.4")
    ax.add_patch(patch).set(color=colour, mutation_scale=1, lw=1.9, joinstyle="miter", zorder=2)


def dot(ax: Axes, x: float, y: float, colour: str, radius: float = 3.4) -> None:
    """Where a line divides or, larger, lines are added."""
    ax.add_patch(Circle((x, y), radius, fc=colour, ec=INK, lw=0.9 * (radius > 5), zorder=3))


def chain(ax: Axes, x: float, top: float, heights: list[int], labels: str, colour: str) -> None:
    """Boxes below one another, at heights y with labels divided by "|"; "+" adds two lines.

    The kind of a box follows from its label. Neurons and gates put out spikes, pooling keeps what
    it gets, and everything else puts out real numbers; `colour` is the line from `top`.
    """
    for y, label in zip(heights, labels.split("|"), strict=True):
        kind = next((kind for word, kind in KINDS.items() if label.startswith(word)), OTHER)
        half = 10 if label == "+" else 17 if "\n" in label else 12.5
        wire(ax, colour, (x, top), (x, y - half))
        if label == "+":
            dot(ax, x, y, "white", half)
            ax.plot([x - 5, x + 5, x, x, x], [y, y, y, y - 5, y + 5], color=INK, lw=1.3, zorder=4)
        else:
            box(ax, x, y, label, kind, 112, 2 * half)
        spikes, top = kind is NEURON or label == "AND", y + half
        colour = SPIKES if spikes else colour if "pool" in label else REAL


def panel(ax: Axes, x: float, width: float, title: str, caption: str) -> None:
    """The background and heading of a panel."""
    area(ax, x, 6, width, 708, "#f4f5f7")
    text(ax, x + 14, 25, title, **BOLD | {"size": 14})
    text(ax, x + 14, 46, caption, **NOTE)


def backbone(ax: Axes) -> None:
    """Panel 1: from the image to the logits."""
    x, side = 82, 147  # centre of the boxes, left edge of the notes
    panel(ax, 6, 226, "1  Backbone", "image [B, C, H, W]")
    area(ax, 14, 108, 210, 368, "#e4e7eb")
    area(ax, 20, 136, 198, 119, "#d0d5db")
    stem = "conv 3×3, BN|SN|max-pool ÷2*|conv 3×3, BN|max-pool ÷2*|SN|conv 3×3, BN|+"
    labels = f"show T times|{stem}|block (panel 2)|mean of tokens|SN|linear|mean over T"
    heights = [80, 156, 195, 234, 283, 322, 377, 416, 454, 511, 555, 594, 633, 672]
    chain(ax, x, 55, heights, labels, REAL)
    wire(ax, REAL, (x, 684), (x, 707))
    wire(ax, REAL, (x, 350), (150, 350), (150, 454), (x + 10, 454))
    dot(ax, x, 350, REAL)
    for y, label in ((123, "stem"), (156, "× 3"), (511, "× L")):
        text(ax, side, y, label, **BOLD | {"size": 12.5})
    stem = "|D/8, D/4, D/2|in the last\nlog₂ p stages|width D|if p > 1"
    notes = f"[T, B, C, H, W]|{stem}|||||[T, B, D]||[T, B, K]|logits [B, K]"
    for y, label in zip(heights, notes.split("|"), strict=True):
        text(ax, side, y, label, **NOTE)
    text(ax, 157, 402, "position\nembedding", **NOTE)
    text(ax, x + 10, 487, "[T, B, D, H/p, W/p]", **NOTE)


def block(ax: Axes) -> None:
    """Panel 2: two branches around a real-valued stream."""
    x = 328
    panel(ax, 240, 226, "2  Block", "membrane residual")
    labels = "SN|SASA + DWC\n(panel 3)|+|SN|conv 1×1, BN\nD → 4D|SN|conv 1×1, BN\n4D → D|+"
    chain(ax, x, 62, [148, 204, 264, 350, 405, 460, 515, 575], labels, REAL)
    wire(ax, REAL, (x, 585), (x, 620))
    for top, bottom, name in ((98, 264, "attention"), (300, 575, "MLP")):
        area(ax, 253, top + 12, 146, bottom - top - 40, "#e4e7eb")
        text(ax, 258, top + 25, name, **BOLD | {"size": 11})
        wire(ax, REAL, (x, top), (416, top), (416, bottom), (x + 10, bottom))
        dot(ax, x, top, REAL)
        text(ax, 424, (top + bottom) / 2, "skip", **NOTE)
    text(ax, x + 10, 79, "[T, B, D, H/p, W/p]", **NOTE)
    text(ax, x + 10, 606, "to the next block", **NOTE)
    words = "Every branch starts with SN,\nso every weight in it sees\nonly zeros and ones."
    text(ax, 254, 675, words, 11, ha="left")


def attention(ax: Axes) -> None:
    """Panel 3: the attention branch, with an example of its spike matrices."""
    q, k, dwc, fan = 590, 720, 836, 108
    middle, caption = (q + k) / 2, "our reading of the abstract; matrices: one head, an example"
    panel(ax, 474, 420, "3  SASA + DWC", caption)
    for x, name in ((q, "q"), (k, "k")):
        wire(ax, SPIKES, (middle, 88), (middle, fan), (x, fan), (x, 129.5))
        chain(ax, x, fan + 10, [142, 182], f"$W_{name}$, BN|SN", SPIKES)
    chain(ax, q, 194, [254, 326, 370], "AND|Σ over tokens|SN, θ = 0.5", SPIKES)
    chain(ax, k, 194, [442, 514, 560, 606], "AND|+|SN, θ = 0.5|$W_o$, BN", SPIKES)
    wire(ax, REAL, (k, 618), (k, 654))
    wire(ax, SPIKES, (k, 254), (q + 56, 254))
    wire(ax, SPIKES, (k, 254), (dwc, 254), (dwc, 345))
    dot(ax, k, 254, SPIKES)
    wire(ax, SPIKES, (q, 382), (q, 442), (k - 56, 442))
    box(ax, dwc, 364, "depthwise\n3×3, BN", WEIGHTS, 92, 38)
    wire(ax, REAL, (dwc, 383), (dwc, 514), (k + 10, 514))
    qs = np.array([list(row) for row in ("100101", "010010", "001011", "100001")]).astype(int)
    ks = np.array([list(row) for row in ("010110", "101001", "011000", "010100")]).astype(int)
    mask = (qs * ks).max(1, keepdims=True)  # with these thresholds one spike opens a channel
    left = (q - 60, 202, "q", qs), (q - 60, 274, "w", qs * ks), (q - 20, 396, "a", mask)
    for x, y, name, values in (*left, (k - 60, 463, "y", mask * ks), (k + 12, 202, "k", ks)):
        text(ax, x + 58 if name == "k" else x - 10, y + 15, f"${name}$", 14)
        for (row, column), value in np.ndenumerate(values):
            patch = Rectangle((x + 8 * column, y + 8 * row), 8, 8, fc=SPIKES if value else "white")
            ax.add_patch(patch).set(ec="#777777", lw=0.6, zorder=3)
    text(ax, k + 80, 218, "d channels ↓\nN tokens →", **NOTE)
    text(ax, middle, 77, "spikes x of the SN in panel 2", **NOTE | {"ha": "center"})
    text(ax, q - 44, 412, "mask,\nd × 1", **NOTE | {"ha": "right"})
    text(ax, dwc - 8, 330, "DWC", **BOLD | {"ha": "right"})
    text(ax, k + 10, 640, "to the + in panel 2", **NOTE)
    text(ax, 488, 675, "No value matrix,\nno N × N product,\nno softmax.", 11, ha="left")


def legend(ax: Axes) -> None:
    """What shapes, colours and letters mean."""
    labels = "weights: conv + BN, linear|SN: spiking neurons (θ = 1)|gate or sum of spikes|other|"
    labels += "spikes, 0 or 1|real numbers|only in some stages|drawn in another panel"
    samples: tuple[Any, ...] = (WEIGHTS, NEURON, GATE, OTHER, SPIKES, REAL, OTHER, ZOOM)
    for i, (label, sample) in enumerate(zip(labels.split("|"), samples, strict=True)):
        x, y = 20 + 220 * (i % 4), 735 + 25 * (i // 4)
        text(ax, x + 34, y, label, 11, ha="left")
        if isinstance(sample, str):
            wire(ax, sample, (x, y), (x + 27, y))
        else:
            box(ax, x + 13, y, "*" if "stages" in label else "", sample, 26, 16)
    words = "T timesteps, B batch, C channels, H and W image sides, p patch side, D width, L blocks"
    text(ax, 20, 787, f"{words}, N = HW/p² tokens, d = D/heads, K classes", **NOTE)


def main() -> None:
    """Three panels from left to right: backbone, block, SASA with DWC; the legend below."""
    fig = Figure(figsize=(WIDTH / 75, HEIGHT / 75), dpi=150, facecolor="white")
    ax = fig.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(HEIGHT, 0))
    ax.axis("off")
    for draw in (backbone, block, attention, legend):
        draw(ax)
    fig.savefig(OUT, metadata={"Software": None})


if __name__ == "__main__":
    main()
