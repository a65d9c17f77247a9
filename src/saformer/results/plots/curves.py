"""Training curves of several runs, from their metrics.jsonl."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from saformer import figure_style as style
from saformer.errors import SettingError
from saformer.results import render
from saformer.results.plots.points import ENERGY, energy_label
from saformer.runs.folder import Run, find, shown

ENERGY_METRIC = "energy/total_mJ"
METRICS = {
    "train/loss": "training loss",
    "val/loss": "validation loss",
    "val/top1": "validation accuracy (%)",
    ENERGY_METRIC: "energy per image",
    "rate/mean": "firing rate",
}
NAMED = 3  # settings that the legend names for one kind of run
MARKERS = 5  # markers on a line


@dataclass(frozen=True)
class Curve:
    """One run with the metrics of its epochs."""

    run: Run
    epochs: list[dict[str, Any]]

    def of(self, metric: str) -> tuple[list[int], list[float]]:
        """Epochs that have the metric, and its values."""
        have = [line for line in self.epochs if isinstance(line.get(metric), int | float)]
        return [int(line["epoch"]) for line in have], [float(line[metric]) for line in have]


def read(paths: Sequence[Path]) -> tuple[list[Curve], list[str]]:
    """Read the runs in some folders, each run once; also return remarks about unusable runs.

    Raises:
        SettingError: A path is not a folder, or no run below it has metrics.
    """
    curves: dict[Path, Curve] = {}
    remarks: list[str] = []
    for path in paths:
        if not path.is_dir():
            raise SettingError(
                f"there is no folder {path}: name folders of runs, or one above them"
            )
        runs, damaged = find(path)
        remarks += damaged
        if not runs:
            said = f": {damaged[0]}" if damaged else ""
            raise SettingError(f"{path} holds no run, that is, no folder with a run.json{said}")
        found = [Curve(run, epochs) for run in runs if (epochs := _epochs(run.folder))]
        if not found:
            raise SettingError(
                f"{path} has no curves: {shown(runs[0].folder)}/metrics.jsonl has no epoch"
            )
        without = len(runs) - len(found)
        remarks += [f"{without} runs in {shown(path)} have no metrics yet"] if without else []
        curves |= {curve.run.folder.resolve(): curve for curve in found}
    return list(curves.values()), remarks


def curves(runs: Sequence[Curve]) -> Figure:
    """Losses, accuracy, energy and firing rate against epochs, if they were logged.

    Runs that differ only in their seed have the same colour: each run is a faint line, and their
    mean is a bold line.

    Raises:
        SettingError: There are more kinds of runs than distinguishable line styles.
    """
    kinds = _kinds(runs)
    if len(kinds) > style.DISTINCT:
        raise SettingError(
            f"{len(kinds)} kinds of runs, not counting seeds, and a figure tells {style.DISTINCT} "
            "apart: name fewer folders"
        )
    conventions = sorted({str(curve.run.config["energy"]["convention"]) for curve in runs})
    metrics = [metric for metric in METRICS if any(curve.of(metric)[0] for curve in runs)]
    mixed = len(conventions) > 1 and ENERGY_METRIC in metrics
    if mixed:
        metrics.remove(ENERGY_METRIC)
    columns = min(3, len(metrics))
    lines = -(-len(metrics) // columns)
    fig = style.figure(style.PAGE if columns > 1 else style.COLUMN, 1.9 * lines)
    axes = fig.subplots(lines, columns, squeeze=False).ravel()
    for ax, metric in zip(axes, metrics, strict=False):
        _panel(ax, metric, kinds, conventions[0])
    for ax in axes[len(metrics) :]:
        ax.remove()
    handles = [Line2D([], [], **style.look(i), label=name) for i, name in enumerate(kinds)]
    said = [_caption(runs, kinds)]
    if mixed:
        said.append(f"Energies, counted under {' and '.join(conventions)}, are left out.")
    if ENERGY_METRIC in metrics:
        said.append(f"Energy and rate are counted on validation images. {render.ENERGY}")
    style.foot(fig, [handles], " ".join(said))
    return fig


def _caption(runs: Sequence[Curve], kinds: dict[str, list[Curve]]) -> str:
    datasets = ", ".join(sorted({str(curve.run.config["dataset"]["name"]) for curve in runs}))
    said = f"Training on {datasets}: {len(runs)} run{'s' if runs[1:] else ''}."
    if any(len(group) > 1 for group in kinds.values()):
        said += " Faint: each seed; bold: their mean, as far as all of them have come."
    unfinished = sum(curve.run.results is None for curve in runs)
    return said + (f" {unfinished} not at the end." if unfinished else "")


def _epochs(folder: Path) -> list[dict[str, Any]]:
    """The epochs in metrics.jsonl; reading stops at a line that is only partly written."""
    try:
        text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    except OSError:
        return []
    lines = []
    for line in text.splitlines():
        try:
            metrics = json.loads(line)
        except ValueError:
            break
        if isinstance(metrics, dict) and isinstance(metrics.get("epoch"), int):
            lines.append(metrics)
    return lines


def _kinds(runs: Sequence[Curve]) -> dict[str, list[Curve]]:
    """Group runs that differ only in their seed, under a name that distinguishes the groups."""
    groups: dict[str, list[Curve]] = {}
    for curve in runs:
        settings = json.dumps(curve.run.settings, sort_keys=True, default=str)
        groups.setdefault(settings, []).append(curve)
    firsts = [group[0].run for group in groups.values()]
    kinds: dict[str, list[Curve]] = {}
    for group in groups.values():
        run = group[0].run
        name = str(run.config["name"])
        alike = [first for first in firsts if first.config["name"] == name]
        apart = [
            f"{setting}={run.settings.get(setting)}"
            for setting in dict.fromkeys(setting for first in alike for setting in first.settings)
            if len({str(first.settings.get(setting)) for first in alike}) > 1
        ]
        words = apart[:NAMED] + ["..."] * (len(apart) > NAMED)
        if len(alike) < len(firsts) or not apart:
            words.insert(0, name)
        label = " ".join(words)
        kinds[label if label not in kinds else f"{label} ({shown(run.folder)})"] = group
    return kinds


def _panel(ax: Axes, metric: str, kinds: dict[str, list[Curve]], convention: str) -> None:
    factor, label = 1.0, METRICS[metric]
    if metric == "val/top1":
        factor = 100.0
    elif metric == ENERGY_METRIC:
        values_of_all = [
            value for group in kinds.values() for curve in group for value in curve.of(metric)[1]
        ]
        unit, factor = ENERGY.unit(values_of_all)
        label = energy_label(unit, convention)
    for i, (name, group) in enumerate(kinds.items()):
        look = style.look(i)
        series = [dict(zip(*curve.of(metric), strict=True)) for curve in group]
        for curve, values in zip(group, series, strict=True):
            if len(group) > 1:
                seed = {"color": look["color"], "linewidth": 0.5, "alpha": 0.5}
                scaled = [factor * value for value in values.values()]
                ax.plot(list(values), scaled, **seed, label=f"{name}, seed {curve.run.seed}")
        epochs = sorted(set(series[0]).intersection(*series[1:]))
        means = [factor * mean(values[epoch] for values in series) for epoch in epochs]
        step = max(len(epochs) // MARKERS, 1)
        place = (i * step // len(kinds), step)  # so that lines have markers at different epochs
        ax.plot(epochs, means, **look, markersize=3.5, markevery=place, label=name)
    ax.set_xlabel("epoch")
    ax.set_ylabel(label)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10], integer=True))
    style.light_grid(ax)
