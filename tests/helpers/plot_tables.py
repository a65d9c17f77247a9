"""A table of two networks on two datasets, and what a figure of it shows, read back."""

import json
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from plot_runs import fabricate

from saformer import figure_style as style
from saformer.results.rows import collect
from saformer.results.tables import Row, Table

SECTIONS = [
    {"label": f"{name}, T = {steps}", "overrides": [f"dataset={name}", f"timesteps={steps}"]}
    for name in ("digits", "digits_events")
    for steps in (1, 4)
]
TABLE = {
    "title": "Two networks",
    "seeds": [0, 1, 2],
    "columns": ["test_top1", "energy"],
    "rows": [{"label": "SAFormer"}, {"label": "no DWC", "overrides": ["ablation=no_dwc"]}],
    "sections": SECTIONS,
}


def numbers(row: Row, seed: int) -> dict[str, float]:
    """Distinct numbers for each row and seed; more energy and accuracy with more T."""
    steps, plain = row.config["timesteps"], row.label == "no DWC"
    events = row.config["dataset"]["name"] == "digits_events"
    top1 = 90 + steps + 1.5 * plain - 0.4 * events + 0.3 * seed**2
    return {"top1": top1, "energy": 1e-3 * steps * (1.3 - 0.2 * plain) * (1 + 0.01 * seed)}


def table_of(composed, given=numbers) -> Table:
    config, rows = composed
    fabricate(rows, Path("outputs"), given)
    return collect("two", config, rows, Path("outputs"))


def panel(fig: Figure, title: str) -> Axes:
    (found,) = [ax for ax in fig.axes if ax.get_title(loc="left") == title]
    return found


def drawn(ax: Axes, label: str) -> tuple[list[float], list[float], list[list[float]]]:
    """x, y and half lengths of the error bars (x's first, if it has them) of a container."""
    (found,) = [one for one in ax.containers if one.get_label() == label]
    line, _, collections = found.lines
    halves = [
        [float(np.ptp(ends, axis=0).max()) / 2 for ends in bars.get_segments() if len(ends)]
        for bars in collections
    ]
    return [*map(float, line.get_xdata())], [*map(float, line.get_ydata())], halves


def measured(row: str, dataset: str, steps: int) -> tuple[list[float], list[float]]:
    """Accuracies (%) and energies (µJ) in the results.json of a row, whatever the table says."""
    found = []
    for path in Path("outputs").glob("*/*/run.json"):
        config = json.loads(path.read_text())["starts"][0]["config"]
        place = "none" if row == "no DWC" else "parallel"
        if (config["dataset"]["name"], config["timesteps"]) == (dataset, steps):
            if config["model"]["dwc"]["place"] == place:
                found.append(json.loads(path.with_name("results.json").read_text()))
    assert len(found) == 3
    return (
        [100 * one["test"]["test/top1"] for one in found],
        [1e3 * one["energy"]["energy/total_mJ"] for one in found],
    )


def caption(fig: Figure) -> str:
    return " ".join(max((text.get_text() for text in fig.texts), key=len).split())


def boxes(texts: list, fig: Figure) -> np.ndarray:
    found = [text.get_window_extent(style.renderer(fig)).extents for text in texts]
    return np.array(found).reshape(-1, 4)


def shared(one: np.ndarray, other: np.ndarray) -> float:
    return float(
        np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, 9e9).prod()
    )
