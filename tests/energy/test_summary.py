"""What a report says in numbers is worked out here by hand, for a layer and its neurons."""

from dataclasses import replace

import pytest
from torch import tensor

from saformer.energy.report import latex_row
from saformer.energy.settings import EnergyConfig
from saformer.energy.summary import layer_means, layer_rates, layer_rows, scalars
from saformer.energy.table import Kind, Layer, LayerTable, Values

COUNTED = {"values": Values.binary, "samples": 2, "timesteps": 4}
FC = Layer(
    **COUNTED,
    name="block.0.fc",
    kind=Kind.linear,
    **{"inputs": 80, "nonzero": 20, "value_sum": 20, "nonzero_t": tensor([2.0, 4, 6, 8])},
    **{"outputs": 160, "dense": 1600, "dense_padded": 1600, "ops": 400, "ops_by_value": 400},
    ops_of_sample=tensor([150.0, 250]),
)
# Of five neurons three never fire, and one does in all of the eight steps.
LIF = Layer(
    **COUNTED,
    name="block.0.lif",
    kind=Kind.neuron,
    **{"inputs": 40, "nonzero": 10, "nonzero_t": tensor([1.0, 2, 3, 4]), "outputs": 40},
    spikes_of_neuron=tensor([0.0, 0, 2, 8, 0]),
)
SILENT = [
    replace(FC, nonzero=0, value_sum=0, ops=0, ops_by_value=0, nonzero_t=0 * FC.nonzero_t),
    replace(LIF, nonzero=0, nonzero_t=0 * LIF.nonzero_t, spikes_of_neuron=0 * LIF.spikes_of_neuron),
]


def test_the_metrics_of_a_network():
    """200 accumulates of 0.9 pJ an image; a twin of 200 products at 4.6 or 0.23 pJ."""
    found = scalars(LayerTable([FC, LIF]), EnergyConfig())
    expected = {
        **{"energy/total_mJ": 180e-9, "energy/ac_mJ": 180e-9, "energy/mac_mJ": 0},
        "energy/total_mJ_se": 45e-9,  # of images of 135 and 225 pJ
        **{"energy/sop_G": 200e-9, "energy/n_samples": 2},
        **{"energy/ann_fp32_mJ": 920e-9, "energy/ann_int8_mJ": 46e-9},
        **{"energy/ratio_ann": 180 / 920, "rate/mean": 1 / 4, "rate/weighted": 1 / 4},
        **{"neurons/dead_frac": 3 / 5, "neurons/saturated_frac": 1 / 5},
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-12, abs=0)


def test_the_rates_of_neurons():
    """Each neuron layer has its mean rate, and one of each timestep; other layers have none."""
    table = LayerTable([FC, LIF, replace(LIF, name="unused", inputs=0, nonzero=0)])
    assert layer_rates(table) == {"block.0.lif": pytest.approx([0.1, 0.2, 0.3, 0.4])}
    assert layer_means(table) == {"rate/block.0.lif": 1 / 4, "rate/unused": 0}


def test_the_rows_of_layers():
    """Counts and energies are per image; only neurons can be dead or saturated."""
    fc, lif = layer_rows(LayerTable([FC, LIF]), EnergyConfig())
    expected = {"rate": 1 / 4, "macs_per_step": 200, "acs": 200, "macs": 0, "paper_ops": 200}
    expected |= {"uJ": 180e-6, "share": 1, "beside_uJ": 0}
    expected |= {f"rate_t{t}": t / 10 for t in (1, 2, 3, 4)}
    assert {name: fc[name] for name in expected} == pytest.approx(expected)
    assert (fc["dead"], fc["saturated"]) == (None, None)
    assert (lif["acs"], lif["share"], lif["dead"], lif["saturated"]) == (0, 0, 3 / 5, 1 / 5)
    assert lif["beside_uJ"] > 0
    assert [lif[f"rate_t{t}"] for t in (1, 2, 3, 4)] == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_a_silent_network_has_numbers_too():
    """Nothing is divided by the energy or the neurons of a network that has none."""
    assert [row["share"] for row in layer_rows(LayerTable(SILENT), EnergyConfig())] == [0, 0]
    found = scalars(LayerTable(SILENT), EnergyConfig())
    assert (found["rate/mean"], found["neurons/dead_frac"]) == (0, 1)
    without = scalars(LayerTable(SILENT[:1]), EnergyConfig())
    assert (without["rate/mean"], without["neurons/dead_frac"]) == (0, 0)


def test_the_row_of_a_publication():
    """20 updates of 5.5 pJ, 4 output spikes of 0.9 pJ and 40 accesses of 5 pJ come on top."""
    table = LayerTable([FC, replace(LIF, nonzero=8)], params=1_500_000)
    facts = {"model": "ours_4", "dataset": "digits", "accuracy": 0.912}
    columns, _wording, counted, row = latex_row(table, EnergyConfig(), facts).splitlines()
    assert columns.count("&") == row.count("&") == 7
    assert counted.startswith("% 2 images of digits;")
    assert row.split(" & ")[:6] == [
        *("ours\\_4", "1.50", "4", "2e-07 / 2e-07", "1.8e-07 / 1.8e-07 / 1.8e-07", "4.94e-07")
    ]
    assert row.endswith(" & 91.20 \\\\")
