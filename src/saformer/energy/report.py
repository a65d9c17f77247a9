"""Write the report of one count to a folder: tables for people and programs, and figures."""

from math import isnan, nan
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from saformer import escape
from saformer.energy import figures
from saformer.energy.conventions import apply, preset
from saformer.energy.costs import Cost, cost_model, millijoules
from saformer.energy.settings import EnergyConfig
from saformer.energy.summary import (
    columns,
    conventions,
    costs,
    layer_rates,
    layer_rows,
    scalars,
)
from saformer.energy.table import Kind, LayerTable
from saformer.files import write_json

WORDING = (
    "Estimated arithmetic energy on 45 nm constants; excludes memory, routing and control unless a "
    "memory model is named; not measured on hardware."
)

NOT_SPIKES = "Layers behind the first whose input is not spikes"


def write(
    table: LayerTable,
    config: EnergyConfig,
    folder: Path,
    facts: dict[str, Any],
    plots: bool = True,
) -> None:
    """Write report.md, table.tex, layers.csv, energy.json and the figures.

    Args:
        table: The counts.
        config: Convention and hardware models.
        folder: Folder of the report; created if needed.
        facts: Facts to write beside the numbers: model, data, versions, commit.
        plots: Whether to draw the figures, which take most of the time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = layer_rows(table, config)
    layers = escape.csv_text(columns(rows), rows)
    (folder / "layers.csv").write_text(layers, encoding="utf-8")
    record = {
        "estimate": True,
        "wording": WORDING,
        "convention": config.convention,
        "scalars": scalars(table, config),
        "conventions_mJ": {
            counted.convention.name: millijoules(cost_model("horowitz45").cost(counted).snn_pJ)
            for counted in conventions(table, config)
        },
        "costs": [_cost(cost) for cost in costs(table, config)],
        "rates": layer_rates(table),
        "layers": rows,
        "not_spikes": table.not_spikes,
        **facts,
    }
    write_json(folder / "energy.json", _no_nan(record))
    (folder / "table.tex").write_text(latex_row(table, config, facts), encoding="utf-8")
    page = markdown(table, config, facts)
    if plots:
        with figures.printed():
            drawn = draw(table, config)
            figures.save(drawn, folder)
        page += "\n" + "".join(f"![{name}]({name}.png)\n" for name in drawn)
    (folder / "report.md").write_text(page, encoding="utf-8")


def draw(table: LayerTable, config: EnergyConfig) -> dict[str, Figure]:
    """The figures of a count, by file name."""
    counted = apply(table, preset(config.convention))
    drawn = {
        "energy_by_layer": figures.by_layer(counted),
        "energy_by_stage": figures.by_stage(conventions(table, config)),
    }
    if table.of(Kind.neuron):
        drawn["firing_rates"] = figures.rates(table)
    return drawn | {"crossover": figures.crossover(costs(table, config))}


def terminal(table: LayerTable, config: EnergyConfig) -> list[Table | str]:
    """The tables of the report for a terminal."""
    shown: list[Table | str] = []
    for title, (header, *rows) in _tables(table, config).items():
        grid = Table(title=Text(escape.plain(title)), title_justify="left", box=SIMPLE)
        for i, word in enumerate(header):
            grid.add_column(Text(word), no_wrap=True, justify="left" if i == 0 else "right")
        for row in rows:
            grid.add_row(*(Text(escape.plain(cell)) for cell in row))
        shown.append(grid)
    if table.not_spikes:
        shown.append(escape.plain(f"{NOT_SPIKES}: {', '.join(table.not_spikes)}"))
    return shown


def markdown(table: LayerTable, config: EnergyConfig, facts: dict[str, Any]) -> str:
    """The report as a Markdown page, without its figures."""
    named = scalars(table, config)
    samples = escape.markdown(_samples(table, facts))
    lines = [
        f"# Energy of {escape.markdown(str(facts.get('model', 'the network')))}",
        "",
        WORDING,
        f"{samples}, T = {table.timesteps}, convention `{config.convention}`.",
        "",
        f"**{named['energy/total_mJ']:.4g} mJ** an image (standard error "
        f"{named.get('energy/total_mJ_se', nan):.2g}), "
        f"{named['energy/sop_G']:.4g} G synaptic operations, "
        f"{named['energy/ratio_ann']:.2g} of the FP32 ANN of the same shape. LIF updates, not in "
        f"it: {named['energy/lif_mJ']:.3g} mJ. Dead neurons {named['neurons/dead_frac']:.1%}, "
        f"saturated {named['neurons/saturated_frac']:.1%}.",
    ]
    lines += [f"\n**{words[0].upper()}{words[1:]}.**" for words in facts.get("silence", [])]
    if table.not_spikes:
        lines += ["", f"{NOT_SPIKES}: {', '.join(f'`{name}`' for name in table.not_spikes)}."]
    for title, (header, *rows) in _tables(table, config).items():
        lines += ["", f"## {title}", ""]
        lines += [
            f"| {' | '.join(row)} |"
            for row in (header, ["---"] * len(header), *(map(escape.markdown, r) for r in rows))
        ]
    return "\n".join(lines) + "\n"


def _tables(table: LayerTable, config: EnergyConfig) -> dict[str, list[list[str]]]:
    """The tables of the report by title; the first row of each is its header."""
    horowitz = cost_model("horowitz45")
    by_convention = [["convention", "AC", "MAC", "energy"]]
    for counted in conventions(table, config):
        energy = _energy(horowitz.cost(counted).snn_pJ)
        row = [counted.convention.name, _count(counted.acs), _count(counted.macs), energy]
        by_convention.append(row)
    by_model = [["hardware model", "spiking", "twin", "of what", "ratio", "pays below rate"]]
    for cost in costs(table, config):
        pays = f"{cost.crossover:.3f}" if cost.crossover > 0 else "never"
        if isnan(cost.crossover):  # nothing fires
            pays = "-"
        energies = [_energy(cost.snn_pJ), _energy(cost.ann_pJ)]
        by_model.append([cost.name, *energies, cost.twin, f"{cost.ratio:.3g}", pays])
    by_layer = [["layer", "input", "rate", "MAC a step", "AC", "MAC", "energy", "share"]]
    for layer in layer_rows(table, config):
        if layer["acs"] or layer["macs"]:
            counts = [_count(layer[name]) for name in ("macs_per_step", "acs", "macs")]
            share = [_energy(layer["uJ"] * 1e6), f"{100 * layer['share']:.1f} %"]
            by_layer.append(
                [layer["layer"], layer["input"], f"{layer['rate']:.3f}", *counts, *share]
            )
    return {
        f"Layers, convention {config.convention}, per image": by_layer,
        "Conventions, per image": by_convention,
        "Hardware models, per image": by_model,
    }


def latex_row(table: LayerTable, config: EnergyConfig, facts: dict[str, Any]) -> str:
    """One row of a publication table, under a comment that names its columns."""
    exact, paper, strict = (
        apply(table, preset(name)) for name in ("exact", "spikformer_paper", "strict")
    )
    horowitz = cost_model("horowitz45")
    energies = [millijoules(horowitz.cost(c).snn_pJ) for c in (exact, paper, strict)]
    beside = horowitz.cost(exact).parts_beside
    with_state = energies[0] + millijoules(beside.get("lif", 0.0) + beside.get("state", 0.0))
    twin = cost_model("yan2024_twin").cost(exact).ratio
    accuracy = facts.get("accuracy")
    cells = [
        escape.latex(str(facts.get("model", "network"))),
        f"{table.params / 1e6:.2f}",
        str(table.timesteps),
        f"{exact.acs / 1e9:.3g} / {paper.acs / 1e9:.3g}",
        " / ".join(f"{value:.3g}" for value in energies),
        f"{with_state:.3g}",
        f"{twin:.2f}",
        f"{100 * accuracy:.2f}" if accuracy is not None else "--",
    ]
    header = (
        "Method & Param (M) & T & OPs (G) exact / paper & Energy (mJ) exact / paper / strict "
        "& + LIF and state (mJ) & twin ratio & Acc (\\%)"
    )
    return (
        f"% {header}\n% {WORDING}\n"
        f"% {escape.plain(_samples(table, facts))}; conventions and models: docs/energy.md\n"
        f"{' & '.join(cells)} \\\\\n"
    )


def _samples(table: LayerTable, facts: dict[str, Any]) -> str:
    """Say how many images of which dataset and split were counted."""
    words = [str(facts[name]) for name in ("dataset", "split") if name in facts]
    return " ".join([f"{table.samples} images", *(["of"] if words else []), *words])


def _no_nan(value: Any) -> Any:
    """Replace NaN by None, because JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _no_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_no_nan(inner) for inner in value]
    return None if isinstance(value, float) and isnan(value) else value


def _cost(cost: Cost) -> dict[str, Any]:
    """A hardware model's estimate and its parts as plain values."""
    return {
        "model": cost.name,
        "technology": cost.technology,
        "snn_mJ": millijoules(cost.snn_pJ),
        "twin": cost.twin,
        "twin_mJ": millijoules(cost.ann_pJ),
        "ratio": cost.ratio,
        "crossover_rate": cost.crossover,
        "rate": cost.rate,
        "parts_mJ": {name: millijoules(value) for name, value in cost.parts.items()},
        "beside_mJ": {name: millijoules(value) for name, value in cost.parts_beside.items()},
    }


def _count(value: float) -> str:
    """A count with three digits and a unit."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def _energy(picojoules: float) -> str:
    """An energy with three digits and a unit."""
    for unit, size in (("mJ", 1e9), ("µJ", 1e6), ("nJ", 1e3)):
        if picojoules >= size:
            return f"{picojoules / size:.3g} {unit}"
    return f"{picojoules:.3g} pJ"
