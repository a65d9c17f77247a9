"""Draw docs/architecture.png: `python scripts/draw_architecture.py`."""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

# Okabe-Ito colours, lightened: told apart by the colour-blind and in grey print.
WEIGHTS, NEURON, MASK, PLAIN = "#9fd0ee", "#f6c667", "#f2a98a", "#ececec"
OUT = Path(__file__).parents[1] / "docs" / "architecture.png"


def box(ax: Axes, x: float, y: float, text: str, colour: str, width: float = 2.2) -> None:
    """A labelled box centred on (x, y)."""
    patch = FancyBboxPatch(
        (x - width / 2, y - 0.26),
        width,
        0.52,
        boxstyle="round,pad=0.03,rounding_size=0.08",
        facecolor=colour,
        edgecolor="black",
        linewidth=0.8,
    )
    ax.add_patch(patch)
    ax.text(x, y, text, ha="center", va="center", fontsize=8.5)


def arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], bend: str = "") -> None:
    """An arrow between two points; `bend` is a matplotlib connection style."""
    style = bend or "arc3,rad=0"
    ax.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=9,
            linewidth=0.9,
            color="black",
            connectionstyle=style,
        )
    )


def chain(ax: Axes, x: float, top: float, rows: list[tuple[str, str]], width: float = 2.2) -> None:
    """Boxes below one another, joined by arrows."""
    for i, (text, colour) in enumerate(rows):
        y = top - i
        box(ax, x, y, text, colour, width)
        if i:
            arrow(ax, (x, y + 0.71), (x, y + 0.3))


def frame(ax: Axes, left: float, bottom: float, right: float, top: float, title: str) -> None:
    """A dashed frame with a title."""
    ax.add_patch(
        FancyBboxPatch(
            (left, bottom),
            right - left,
            top - bottom,
            boxstyle="round,pad=0,rounding_size=0.15",
            facecolor="none",
            edgecolor="0.45",
            linestyle="--",
            linewidth=0.9,
        )
    )
    ax.text((left + right) / 2, top + 0.14, title, ha="center", va="bottom", fontsize=10)


def main() -> None:
    """Three panels from left to right: backbone, block, SASA with DWC."""
    fig, ax = plt.subplots(figsize=(10.4, 6.2))
    ax.set_xlim(-0.1, 13.2)
    ax.set_ylim(-0.9, 8.3)
    ax.axis("off")

    backbone = [
        ("image, shown T times", PLAIN),
        ("stem: 4 x conv, BN, SN", WEIGHTS),
        ("+ position conv", WEIGHTS),
        ("L blocks", WEIGHTS),
        ("mean over tokens", PLAIN),
        ("SN", NEURON),
        ("linear", WEIGHTS),
        ("mean over T: logits", PLAIN),
    ]
    chain(ax, 1.5, 7.3, backbone, 2.5)
    frame(ax, 0, -0.15, 3.0, 7.8, "backbone")

    frame(ax, 3.7, -0.15, 6.9, 7.8, "block (membrane residual)")
    chain(ax, 4.8, 6.3, [("SN", NEURON), ("SASA + DWC", MASK)], 1.5)
    ax.text(4.8, 7.35, "stream [T, B, D, H, W]", ha="center", fontsize=8.5)
    arrow(ax, (4.8, 7.22), (4.8, 6.6))
    chain(ax, 4.8, 3.6, [("SN", NEURON), ("conv 1x1, BN", WEIGHTS)], 1.5)
    chain(ax, 4.8, 1.6, [("SN", NEURON), ("conv 1x1, BN", WEIGHTS)], 1.5)
    arrow(ax, (4.8, 2.3), (4.8, 1.9))
    for y in (4.5, -0.0):
        if y > 0:
            ax.text(4.8, y, "+", ha="center", va="center", fontsize=13)
    arrow(ax, (4.8, 5.0), (4.8, 4.68))
    arrow(ax, (4.8, 4.33), (4.8, 3.9))
    arrow(ax, (4.9, 7.15), (4.98, 4.5), "angle3,angleA=0,angleB=0")
    ax.text(6.28, 5.6, "skip", ha="center", fontsize=8, color="0.35")
    plt.close(fig)
    fig.savefig(OUT, dpi=160, bbox_inches="tight")


if __name__ == "__main__":
    main()
