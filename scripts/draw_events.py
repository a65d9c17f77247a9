"""Draw docs/events.png, a digit and its frames: `python scripts/draw_events.py`."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from saformer.data.events import to_frames
from saformer.data.readers.digits import load
from saformer.data.settings import SplitBy
from saformer.data.simulate import VIEW, record

OUT = Path(__file__).parents[1] / "docs" / "events.png"
DIGIT, T = 3, 4
# Okabe and Ito's blue and orange: apart for every eye, and in grey.
COLOURS = {"brighter": (0.0, 0.45, 0.70), "darker": (0.90, 0.62, 0.0)}


def main() -> None:
    """Record the digit, and show each frame's events by polarity; more events, more colour."""
    image = load()[0][DIGIT]
    events = record(image, seed=DIGIT)
    frames, _ = to_frames(events, T, SplitBy.number, VIEW, VIEW)
    figure = Figure(figsize=(9, 2.15), layout="constrained")
    axes = figure.subplots(1, T + 1)
    axes[0].imshow(image, cmap="gray")
    axes[0].set_title("image", fontsize=10)
    for t in range(T):
        darker, brighter = np.minimum(frames[t] / 3.0, 1)
        shown = np.ones((VIEW, VIEW, 3))
        for counts, colour in ((darker, COLOURS["darker"]), (brighter, COLOURS["brighter"])):
            shown = shown * (1 - counts[..., None]) + counts[..., None] * np.array(colour)
        axes[t + 1].imshow(shown, interpolation="nearest")
        axes[t + 1].set_title(f"frame {t + 1}: {frames[t].sum()} events", fontsize=10)
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
    patches = [Patch(color=colour, label=f"{name} pixels") for name, colour in COLOURS.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    figure.savefig(OUT, dpi=150)


if __name__ == "__main__":
    main()
