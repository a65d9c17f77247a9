"""The figure of `python -m benchmarks.train_step --scaling`: growth over T, for each batch size."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from benchmarks.networks import NETWORKS
from saformer import figure_style as style

CAPTION = (
    "A training step of Spikformer-4-384 at 32 px, divided by T and by its batch: a level line is "
    "growth in proportion to T. Memory is the peak above weights, gradients and optimizer state. "
    "Points that are missing needed more memory than was free."
)
PANELS = (
    ("ms a sample and timestep", "median_s", 1e3),
    ("MiB a sample and timestep", "peak_MiB", 1.0),
)


def draw(cells: list[dict[str, Any]], folder: Path, name: str) -> list[Path]:
    """Time above peak memory, both of a sample's timestep; a column for each batch size.

    Args:
        cells: What was measured at each T and batch size.
        folder: Where the PNG and the PDF go.
        name: Of the files.
    """
    batches = sorted({cell["batch"] for cell in cells})
    networks = list(dict.fromkeys(name for cell in cells for name in cell["networks"]))
    with style.printed():
        fig = style.figure(style.PAGE, 3.6)
        axes = fig.subplots(2, len(batches), sharex=True, sharey="row", squeeze=False)
        for column, batch in enumerate(batches):
            of = sorted(
                (cell for cell in cells if cell["batch"] == batch),
                key=lambda cell: cell["timesteps"],
            )
            for row, (label, what, factor) in enumerate(PANELS):
                ax = axes[row, column]
                for index, network in enumerate(networks):
                    _line(ax, of, network, what, factor / batch, index)
                _over_t(ax, sorted({cell["timesteps"] for cell in cells}))
                if not column:
                    ax.set_ylabel(label)
            axes[0, column].set_title(f"batch {batch}")
            axes[1, column].set_xlabel("timesteps T")
        for ax in axes[:, 0]:  # when all is drawn, since a row shares its limits
            ax.set_ylim(0, 1.03 * ax.get_ylim()[1])
        handles = [
            Line2D([], [], **style.look(index), label=NETWORKS[network].label)
            for index, network in enumerate(networks)
        ]
        style.foot(fig, [handles], CAPTION)
        return style.save(fig, folder, name)


def _line(
    ax: Axes, cells: list[dict[str, Any]], network: str, what: str, factor: float, index: int
) -> None:
    points = [
        (cell["timesteps"], factor * cell["networks"][network][what] / cell["timesteps"])
        for cell in cells
        if what in cell["networks"].get(network, {})
    ]
    ax.plot([T for T, _ in points], [value for _, value in points], **style.look(index))


def _over_t(ax: Axes, steps: list[int]) -> None:
    ax.set_xscale("log", base=2)
    ax.set_xticks(steps, [str(step) for step in steps])
    ax.xaxis.set_minor_locator(NullLocator())
    style.light_grid(ax, "y")
