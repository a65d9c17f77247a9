"""Turn one count into the metrics to log and the rows of the tables to write.

Every number is an estimate. Its name says what it estimates, and the files name the convention.
"""

from collections.abc import Mapping
from math import isnan
from typing import Any

from saformer.energy.conventions import Counted, apply, preset
from saformer.energy.costs import Cost, cost_model, millijoules
from saformer.energy.settings import CONVENTIONS, OF_COSTS, EnergyConfig
from saformer.energy.table import Kind, LayerTable

Scalars = dict[str, float]


def scalars(table: LayerTable, config: EnergyConfig) -> Scalars:
    """Metrics of one count by name, all per image.

    `energy/*_mJ` is the energy of synaptic operations in FP32 arithmetic at 45 nm (`horowitz45`)
    under the configured convention, unless the name says otherwise. It does not include LIF
    updates, which have their own metric.
    """
    counted = apply(table, preset(config.convention))
    horowitz = cost_model("horowitz45")
    cost = horowitz.cost(counted)
    bounds = {
        name: horowitz.cost(apply(table, preset(convention))).snn_pJ
        for name, convention in (("strict", "strict"), ("paper", "spikformer_paper"))
    }
    int8 = cost_model("horowitz45_ann_int8").cost(counted)
    neurons = table.of(Kind.neuron)
    updates = sum(layer.inputs for layer in neurons)
    cells = sum(layer.spikes_of_neuron.numel() for layer in neurons)
    named = {
        "energy/total_mJ": millijoules(cost.snn_pJ),
        "energy/total_mJ_se": millijoules(cost.se_pJ),
        "energy/mac_mJ": millijoules(cost.parts.get("macs", 0.0)),
        "energy/ac_mJ": millijoules(cost.parts.get("acs", 0.0)),
        "energy/sop_G": counted.acs / 1e9,
        **{f"energy/{name}_mJ": millijoules(value) for name, value in bounds.items()},
        "energy/lif_mJ": millijoules(cost.parts_beside.get("lif", 0.0)),
        "energy/ann_fp32_mJ": millijoules(cost.ann_pJ),
        "energy/ann_int8_mJ": millijoules(int8.ann_pJ),
        "energy/ratio_ann": cost.ratio,
        "energy/n_samples": float(table.samples),
        "rate/mean": sum(layer.nonzero for layer in neurons) / updates if updates else 0.0,
        "rate/weighted": counted.rate,
    }
    for name, model in OF_COSTS.items():
        if model in config.costs:
            other = cost_model(model).cost(counted)
            named[name] = other.ratio if "ratio" in name else other.snn_pJ / 1e6
    for share in ("dead", "saturated"):
        total = sum(getattr(layer, share) * layer.spikes_of_neuron.numel() for layer in neurons)
        named[f"neurons/{share}_frac"] = total / cells if cells else 0.0
    # The standard error of a single image is NaN, which JSON cannot hold.
    return {name: value for name, value in named.items() if not isnan(value)}


def layer_rates(table: LayerTable) -> dict[str, list[float]]:
    """Firing rate of every neuron layer at each timestep."""
    return {
        layer.name: (layer.nonzero_t / (layer.inputs / layer.timesteps)).tolist()
        for layer in table.of(Kind.neuron)
        if layer.inputs
    }


def layer_means(table: LayerTable) -> Scalars:
    """Firing rate of every neuron layer as a metric."""
    return {f"rate/{layer.name}": layer.rate for layer in table.of(Kind.neuron)}


def costs(table: LayerTable, config: EnergyConfig) -> list[Cost]:
    """The cost of the network under every configured hardware model."""
    counted = apply(table, preset(config.convention))
    return [cost_model(name).cost(counted) for name in config.costs]


def layer_rows(table: LayerTable, config: EnergyConfig) -> list[Mapping[str, Any]]:
    """One row for each layer, for CSV, JSON and `wandb.Table`; counts and energies per image."""
    counted = apply(table, preset(config.convention))
    paper = {row.name: row for row in apply(table, preset("spikformer_paper")).rows}
    cost = cost_model("horowitz45").cost(counted)
    total, by_layer, beside = cost.snn_pJ, cost.layers, cost.layers_beside
    return [
        {
            "layer": row.name,
            "kind": row.kind.value,
            "stage": row.stage,
            "input": row.layer.values.value,
            "rate": row.layer.rate,
            "macs_per_step": row.layer.dense / row.layer.samples / row.layer.timesteps,
            "acs": row.acs,
            "macs": row.macs,
            "paper_ops": paper[row.name].acs + paper[row.name].macs,
            "uJ": by_layer.get(row.name, 0.0) / 1e6,
            "share": by_layer.get(row.name, 0.0) / total if total else 0.0,
            "beside_uJ": beside.get(row.name, 0.0) / 1e6,
            "dead": row.layer.dead if row.kind is Kind.neuron else None,
            "saturated": row.layer.saturated if row.kind is Kind.neuron else None,
            **{
                f"rate_t{t}": value / (row.layer.inputs / row.layer.timesteps)
                for t, value in enumerate(row.layer.nonzero_t.tolist(), 1)
                if row.layer.inputs
            },
        }
        for row in counted.rows
    ]


def columns(rows: list[Mapping[str, Any]]) -> list[str]:
    """Names of all columns in any row; a layer that runs once has fewer rates than others."""
    return list(dict.fromkeys(name for row in rows for name in row))


def conventions(table: LayerTable, config: EnergyConfig) -> list[Counted]:
    """The count under every convention, the configured one first."""
    names = dict.fromkeys([config.convention, *CONVENTIONS])
    return [apply(table, preset(name)) for name in names]
