"""Figures of one count: energy by layer and by stage, firing rates, and where spiking pays.

The figures do not use pyplot, so they need no display and leave no global state. The colours are
Okabe and Ito's: colour-blind readers can distinguish them, and they differ in grey print too.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from math import isnan, nan
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from saformer.energy.conventions import Counted
from saformer.energy.costs import FP32, Cost
from saformer.energy.table import Kind, LayerTable
from saformer.figure_style import BLUE, COLOURS, ORANGE, YELLOW

MAC, AC = BLUE, ORANGE
STAGES = (*COLOURS, YELLOW)
STYLES = ("-", "--", "-.", ":")
NOTE = "estimated arithmetic energy on 45 nm constants, not measured"


def printed() -> AbstractContextManager[None]:
    """Context in which figures are made and saved: matplotlib prints a $ in a name as a $."""
    return matplotlib.rc_context({"text.parse_math": False})


def by_layer(counted: Counted) -> Figure:
    """Bars of microjoules per image, one for each layer that has operations, in network order."""
    rows = [row for row in counted.rows if row.acs or row.macs]
    fig, ax = _new(8, 1.2 + 0.28 * len(rows))
    y = np.arange(len(rows))
    macs = [row.macs * FP32.mac / 1e6 for row in rows]
    acs = [row.acs * FP32.add / 1e6 for row in rows]
    ax.barh(y, macs, color=MAC, label="multiply-accumulates (MAC)")
    ax.barh(y, acs, left=macs, color=AC, label="accumulates (AC)")
    total = sum(macs) + sum(acs)
    for i, value in enumerate(np.add(macs, acs)):
        ax.annotate(f" {100 * value / total:.1f} %", (value, i), va="center", fontsize=8)
    ax.set_yticks(y, [row.name for row in rows], fontsize=8)
    ax.invert_yaxis()
    ax.margins(x=0.12)
    ax.set_xlabel(f"µJ per image, convention {counted.convention.name}\n{NOTE}")
    ax.legend(loc="best", fontsize=8)
    ax.set_title(f"{total:.3g} µJ per image, by layer")
    return fig


def by_stage(counts: Sequence[Counted]) -> Figure:
    """One stacked bar per convention: the same run under different rules of counting."""
    totals = [
        {
            stage: sum(
                (row.macs * FP32.mac + row.acs * FP32.add) / 1e6
                for row in counted.rows
                if row.stage == stage
            )
            for stage in dict.fromkeys(row.stage for row in counted.rows)
        }
        for counted in counts
    ]
    stages = [stage for stage in totals[0] if any(total[stage] for total in totals)]
    fig, ax = _new(8, 1.6 + 0.5 * len(counts))
    left = np.zeros(len(counts))
    names = [counted.convention.name for counted in counts]
    for i, stage in enumerate(stages):
        values = np.array([total[stage] for total in totals])
        hatch = "//" if i >= len(STAGES) else None
        ax.barh(names, values, left=left, color=STAGES[i % len(STAGES)], hatch=hatch, label=stage)
        left += values
    for i, value in enumerate(left):
        ax.annotate(f" {value:.3g}", (value, i), va="center", fontsize=8)
    ax.invert_yaxis()
    ax.margins(x=0.1)
    ax.set_xlabel(f"µJ per image\n{NOTE}")
    fig.legend(ncols=4, fontsize=8, loc="outside lower center", frameon=False)
    ax.set_title("The same run under each convention, by stage")
    return fig


def rates(table: LayerTable) -> Figure:
    """Heat map of firing rates: one row per neuron layer, one column per timestep."""
    neurons = table.of(Kind.neuron)
    rate_of = np.stack(
        [layer.nonzero_t.numpy() / (layer.inputs / layer.timesteps) for layer in neurons]
    )
    fig, ax = _new(3.4 + 0.62 * rate_of.shape[1], 1.3 + 0.28 * len(neurons))
    image = ax.imshow(rate_of, vmin=0, vmax=1, cmap="cividis", aspect="auto")
    for (row, column), value in np.ndenumerate(rate_of):
        colour = "white" if value < 0.5 else "black"
        ax.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=7)
    ax.set_xticks(range(rate_of.shape[1]), [str(t + 1) for t in range(rate_of.shape[1])])
    ax.set_yticks(range(len(neurons)), [layer.name for layer in neurons], fontsize=8)
    ax.set_xlabel("timestep")
    ax.set_title("Firing rates")
    fig.colorbar(image, ax=ax, label="spikes per neuron and step")
    return fig


def crossover(costs: Sequence[Cost]) -> Figure:
    """Energy relative to the twin network against mean firing rate, for each hardware model."""
    fig, ax = _new(8, 5)
    rate = costs[0].rate
    low, high = min(0.01, rate / 2) or 0.01, max(1.0, 2 * rate)
    x = np.geomspace(low, high, 50)
    for i, cost in enumerate(costs):
        colour, style = STAGES[i % len(STAGES)], STYLES[i % len(STYLES)]
        label = f"{cost.name} / {cost.twin}: {cost.ratio:.2g}, even at {_rate(cost.crossover)}"
        ax.plot(x, [cost.ratio_at(r) for r in x], style, color=colour, label=label)
        ax.plot(rate or nan, cost.ratio, "o", color=colour, markersize=5)
    if not rate:
        ax.annotate("nothing fires", (0.5, 0.5), xycoords="axes fraction", ha="center")
    ax.axhline(1, color="black", linewidth=0.8)
    if rate:
        ax.axvline(rate, color="black", linewidth=0.8, linestyle=":")
        ax.annotate(f" this network: {rate:.3f}", (rate, 0.02), xycoords=("data", "axes fraction"))
    ax.annotate("the twin costs less", (low, 1), (2, 4), textcoords="offset points", fontsize=8)
    text = "the spiking network costs less"
    ax.annotate(text, (low, 1), (2, -4), textcoords="offset points", fontsize=8, va="top")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_major_formatter("{x:g}")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_formatter(LogFormatter())  # the default formatter writes formulas
    ax.set_xlim(low, high)
    ax.set_xlabel("mean firing rate of the inputs of weight layers")
    ax.set_ylabel("estimated energy, spiking / twin")
    fig.legend(fontsize=8, loc="outside lower center", ncols=2, frameon=False)
    ax.set_title("Where spiking pays, by hardware model")
    return fig


def save(figures: dict[str, Figure], folder: Path) -> None:
    """Write each figure as `<name>.png`."""
    for name, figure in figures.items():
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=150, bbox_inches="tight", metadata={"Software": None})


def _rate(crossover: float) -> str:
    return "-" if isnan(crossover) else f"{crossover:.2g}" if crossover > 0 else "no rate"


def _new(width: float, height: float) -> tuple[Figure, matplotlib.axes.Axes]:
    fig = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(fig)
    ax = fig.subplots()
    ax.spines[["top", "right"]].set_visible(False)
    return fig, ax
