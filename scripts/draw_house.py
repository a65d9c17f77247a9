"""Draw docs/house.png, how the program fits together: `python scripts/draw_house.py`."""

from pathlib import Path

from draw_architecture import BOLD, INK, NOTE, area, text, wire
from matplotlib.axes import Axes
from matplotlib.figure import Figure

OUT = Path(__file__).parents[1] / "docs" / "house.png"
WIDTH, HEIGHT = 900, 430  # units of the drawing: pixels in README; the file has twice as many
BLUE, YELLOW, GREY, WHITE = "#a3d3f2", "#fbe183", "#e4e7eb", "#ffffff"
COLUMN, ROOM = 180, 150  # from one column of rooms to the next, width of a room


def room(ax: Axes, column: float, top: float, colour: str, title: str, about: str) -> None:
    """A box with the name of a folder or file and what is in it."""
    x, lines = 12 + COLUMN * column, about.split("\n")
    area(ax, x, top, ROOM, 34 + 16 * len(lines), colour)
    text(ax, x + 10, top + 17, title, **BOLD | {"size": 12.5})
    for i, line in enumerate(lines):
        text(ax, x + 10, top + 36 + 16 * i, line, **NOTE | {"color": INK})


def flow(ax: Axes, column: float, y: float, label: str = "") -> None:
    """An arrow into a column from the one to its left, with what flows below it."""
    right = 12 + COLUMN * column
    wire(ax, INK, (right - COLUMN + ROOM, y), (right - 2, y))
    for i, line in enumerate(label.split("\n")):
        text(ax, right - 17, y + 14 + 13 * i, line, **NOTE | {"ha": "center", "size": 9.5})


def heading(ax: Axes, top: float, height: float, words: str) -> None:
    """A band behind rooms, with its name."""
    area(ax, 4, top, WIDTH - 8, height, "#f4f5f7")
    text(ax, 14, top + 16, words, **NOTE)


def main() -> None:
    """Three bands from top to bottom: a command, its run, and what is made of many runs."""
    fig = Figure(figsize=(WIDTH / 75, HEIGHT / 75), dpi=150, facecolor="white")
    ax = fig.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(HEIGHT, 0))
    ax.axis("off")

    heading(ax, 4, 104, "a command becomes one checked configuration")
    room(ax, 0, 32, WHITE, "command line", "cli.py\ntrain.py, eval.py")
    room(ax, 1, 32, GREY, "conf/", "one file an option,\ncomposed by Hydra")
    room(ax, 2, 32, GREY, "config/", "the schema, and errors\nin one line")
    room(ax, 3, 32, GREY, "runs/experiment", "one run from start\nto end")
    room(ax, 4, 32, GREY, "runs/", "cluster, sweep, resume:\ndevices, stop and go")
    for column in (1, 2, 3):
        flow(ax, column, 62)
    wire(ax, INK, (12 + 4 * COLUMN, 62), (14 + 3 * COLUMN + ROOM, 62))

    heading(ax, 114, 198, "one run: T timesteps, B images of C channels, K classes")
    room(ax, 0, 142, BLUE, "data/", "files, readers, cache;\nsplits; augmentation\non the device")
    room(
        ax,
        1,
        142,
        YELLOW,
        "models/",
        "stem, L x block(SASA\n+ DWC, MLP), head;\nneurons over all T",
    )
    room(ax, 2, 142, BLUE, "training/", "module: loss, accuracy,\noptimizer, schedule")
    room(
        ax,
        3,
        142,
        BLUE,
        "training/callbacks/",
        "checkpoints, results,\nenergy, progress;\nruns/logger: wandb",
    )
    room(
        ax,
        4,
        142,
        WHITE,
        "outputs/ ... /",
        "checkpoints, metrics,\nresults.json, run.json,\nenergy, plots",
    )
    flow(ax, 1, 180, "[B, C,\nH, W]")
    flow(ax, 2, 180, "[T, B,\nK]")
    flow(ax, 3, 180)
    flow(ax, 4, 180)
    room(ax, 1, 240, BLUE, "energy/  spikes/", "hooks that change\nnothing, in evaluation")
    middle = 12 + COLUMN + ROOM / 2
    wire(ax, INK, (middle, 224), (middle, 238))
    wire(ax, INK, (12 + COLUMN + ROOM, 272), (12 + 3.4 * COLUMN, 272), (12 + 3.4 * COLUMN, 226))
    text(ax, 24 + 2 * COLUMN, 288, "counts, energy by convention, figures", **NOTE)

    heading(ax, 318, 104, "later, from the folders and checkpoints of many runs")
    room(ax, 0, 346, BLUE, "results/", "saformer table\nsaformer plot")
    room(ax, 1, 346, BLUE, "commands/", "saformer eval, energy,\ndata: a file a command")
    room(ax, 2, 346, BLUE, "classifier.py", "saformer.load for\nyour own code")
    room(ax, 3, 346, BLUE, "export/", "saformer export:\ntorch.export, ONNX")
    room(ax, 4, 346, BLUE, "interop/", "saformer import: a rival's\ncheckpoint as ours")
    fig.savefig(OUT, metadata={"Software": None})


if __name__ == "__main__":
    main()
