"""Hardware models price operations as their equations say; all expected numbers are worked out.

Constants are written out once more, from their sources: Horowitz (ISSCC 2014, 45 nm), Lemaire et
al. (arXiv 2210.13107), STEP (arXiv 2505.11151), Yan et al. (arXiv 2409.08290, 22 nm).
"""

from dataclasses import FrozenInstanceError, fields, replace
from math import inf, isnan

import numpy as np
import pytest
import torch
from priced_layers import ACC, ACCESS, ADD, MUL, conv, layer, linear

from saformer.energy.conventions import EXACT, apply, preset
from saformer.energy.costs import (
    FP16,
    FP32,
    INT8,
    INT32,
    MODELS,
    Cost,
    CostModel,
    Horowitz45,
    Lemaire2022,
    MemorySimple,
    Yan2024Twin,
    cost_model,
    millijoules,
)
from saformer.energy.table import Kind, Layer, LayerTable, Values
from saformer.errors import SettingError

MODEL_NAMES = sorted(MODELS)


def cost(model: CostModel, parts: list[Layer]) -> Cost:
    return model.cost(apply(LayerTable(parts), EXACT))


# ---- horowitz45 ----


@pytest.mark.parametrize(
    ("snn", "ann", "e_ac", "e_mac", "expected"),
    [
        (FP32, FP32, 0.9, 3.7 + 0.9, 1.278),
        (FP32, FP16, 0.9, 1.1 + 0.4, 0.417),
        (FP32, INT8, 0.9, 0.2 + 0.03, 0.064),
        (INT8, INT8, 0.03, 0.2 + 0.03, 1.917),
        (INT32, INT8, 0.1, 0.2 + 0.03, 0.575),
        (FP16, FP16, 0.4, 1.1 + 0.4, 0.938),
    ],
)
def test_arithmetic_alone_breaks_even_at_k_over_t(snn, ann, e_ac, e_mac, expected):
    """E_AC r T M = E_MAC M at r* = E_MAC / (E_AC T), whatever the rate it was measured at."""
    model = Horowitz45(name="any", snn=snn, ann=ann)
    for rate in (0.02, 0.3):
        crossover = cost(model, linear(384, 384, 64, rate)).crossover
        assert crossover == pytest.approx(e_mac / (4 * e_ac))
        assert crossover == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize(
    ("name", "e_ac", "e_mac"),
    [
        ("horowitz45", 0.9, 4.6),
        ("horowitz45_fp16", 0.4, 1.5),
        ("horowitz45_int8", 0.03, 0.23),
        ("horowitz45_ann_int8", 0.9, 0.23),
    ],
)
def test_a_name_stands_for_its_precisions(name, e_ac, e_mac):
    """The network pays E_AC for an operation and the twin E_MAC for a dense one."""
    priced = cost(cost_model(name), linear(10, 20, 5, 0.25))
    assert priced.snn_pJ == pytest.approx(0.25 * 4 * 1000 * e_ac)
    assert priced.ann_pJ == pytest.approx(1000 * e_mac)
    assert (priced.name, set(priced.parts)) == (name, {"acs"})


def test_the_constants_are_the_usual_ones():
    """0.9 pJ for an accumulate and 4.6 pJ for a multiply-accumulate."""
    assert (FP32.add, FP32.mac) == (0.9, pytest.approx(4.6))
    assert millijoules(4.6e9) == 4.6


def test_an_image_that_both_networks_multiply_leaves_the_crossover():
    """A first layer multiplied once is paid at any rate, by the twin as well, and cancels."""
    spikes, _ = linear(10, 20, 5, 0.1)
    image = layer(Kind.conv, Values.real, static=True, dense=4 * 300, dense_padded=4 * 300)
    priced = cost(cost_model("horowitz45"), [image, spikes])
    assert priced.snn_pJ == pytest.approx(300 * 4.6 + 0.1 * 4 * 1000 * 0.9)
    assert priced.ann_pJ == pytest.approx(1300 * 4.6)
    assert priced.crossover == pytest.approx(1000 * 4.6 / (4 * 1000 * 0.9))
    assert priced.ratio_at(0.2) == pytest.approx((300 * 4.6 + 0.2 * 4 * 1000 * 0.9) / (1300 * 4.6))


NEURONS_OF_SPIKFORMER_4_384 = (
    48 * 32**2 + 96 * 32**2 + 192 * 32**2 + 384 * 16**2 + 384 * 8**2  # stem
) + 4 * (64 * (5 * 384 + 1536 + 384))  # q, k, v, attention, projection, two of the MLP


def test_lif_updates_of_spikformer_4_384_stand_beside_the_total():
    """1.45 M neurons, 5.80 M updates: 0.032 mJ, and 0.06 to 1.2 mJ for their membranes."""
    n = NEURONS_OF_SPIKFORMER_4_384
    assert (n / 1e6, 4 * n / 1e6) == (pytest.approx(1.45, abs=5e-3), pytest.approx(5.8, abs=5e-3))
    silent = layer(Kind.neuron, inputs=4 * n, outputs=4 * n)
    firing = replace(silent, nonzero=1e6)
    model = Horowitz45(name="horowitz45")
    beside = cost(model, [silent]).parts_beside
    assert beside["lif"] == pytest.approx(4 * n * (MUL + 2 * ADD))
    assert millijoules(beside["lif"]) == pytest.approx(0.032, abs=5e-4)
    spikes = cost(model, [firing]).parts_beside["lif"] - beside["lif"]
    assert spikes == pytest.approx(1e6 * ADD)
    assert cost(model, [firing]).snn_pJ == 0
    # Membranes: 5 pJ for 32 bits in an 8 kB cache; 3.12 pJ/bit (STEP) for 32 and 8 bits.
    assert millijoules(beside["state"]) == pytest.approx(0.058, abs=5e-4)
    for arithmetic, expected in ((FP32, 1.16), (INT8, 0.29)):
        step = replace(model, snn=arithmetic, sram_bit=3.12)
        state = millijoules(cost(step, [silent]).parts_beside["state"])
        assert state == pytest.approx(expected, abs=5e-3)


def test_a_residual_addition_stands_beside_the_total():
    """One addition for each of its outputs."""
    one = layer(Kind.add, Values.real, samples=2, inputs=1600, outputs=800)
    priced = cost(cost_model("horowitz45"), [one])
    assert priced.parts_beside == {"residual": pytest.approx(400 * ADD)}
    assert priced.snn_pJ == 0


# ---- memory_simple ----


@pytest.mark.parametrize(
    "parts",
    [conv(96, 192, 32, 0.1), conv(192, 384, 16, 0.1), linear(384, 384, 64, 0.1)],
)
def test_memory_without_reuse_breaks_even_near_one_over_t(parts):
    """One fetch for each operation: 0.25 to 0.26 at T = 4, with biases and membranes a bit less."""
    synapses, neurons = parts
    macs, n = synapses.dense / 4, neurons.inputs / 4
    twin = macs * (MUL + ADD + ACCESS) + n * ACCESS
    fixed = 4 * n * ACCESS + 2 * 4 * n * ACCESS  # biases, membranes
    crossover = cost(MemorySimple(), parts).crossover
    assert crossover == pytest.approx((twin - fixed) / (4 * macs * (ADD + ACCESS)))
    assert 0.25 < crossover < 0.26


def test_memory_prices_each_part():
    """Operations, an access for each, a bias for each output; the LIF update stands beside."""
    parts = linear(10, 20, 5, 0.25)
    priced = cost(MemorySimple(), parts)
    assert priced.parts == {
        "acs": pytest.approx(1000 * ADD),
        "weights": pytest.approx(1000 * ACCESS),
        "biases": pytest.approx(4 * 100 * ACCESS),
        "state": pytest.approx(2 * 4 * 100 * ACCESS),
    }
    updates, spikes = 4 * 100, 0.25 * 4 * 100
    beside = {"lif": pytest.approx(updates * (MUL + 2 * ADD) + spikes * ADD)}
    assert priced.parts_beside == beside
    adding = cost(MemorySimple(), [layer(Kind.sum, inputs=100, nonzero=20, ops=20)])
    assert adding.parts == {"acs": pytest.approx(20 * ADD)}  # a sum fetches no weights


# ---- lemaire2022 ----


@pytest.mark.parametrize(
    ("size", "pJ"),
    [(0, 0), (4096, 5), (8192, 10), (20480, 15), (32768, 20), (2**20, 100), (2**30, 100)],
)
def test_an_access_costs_what_its_memory_is_large(size, pJ):
    """10, 20 and 100 pJ at 8 kB, 32 kB and 1 MB; linear between these points, flat after."""
    assert Lemaire2022().access(size) == pytest.approx(pJ)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (conv(96, 192, 32, 0.1), 0.132),
        (conv(192, 384, 16, 0.1), 0.172),
        (linear(384, 384, 64, 0.1), 0.199),
        (linear(384, 1536, 64, 0.1), 0.161),
    ],
)
def test_addressing_and_state_set_the_crossover(parts, expected):
    """Layers as large as SAFormer's win below a rate of 13 to 20 % at T = 4."""
    assert cost(Lemaire2022(), parts).crossover == pytest.approx(expected, abs=6e-4)


def test_lemaire_follows_the_equations():
    """A layer and its twin, term by term, with 32-bit integers and memories of 32-bit words."""
    T, c_in, c_out, tokens, rate = 3, 64, 256, 16, 0.125
    add, mac = 0.1, 3.1 + 0.1
    n_in, n_out, macs = c_in * tokens, c_out * tokens, c_in * c_out * tokens
    e_in = 10 * 4 * n_in / 8192  # 4 kB
    e_out = 10 + 10 * (4 * n_out - 8192) / (32768 - 8192)  # 16 kB
    e_par = 20 + 80 * (4 * c_in * c_out - 32768) / (2**20 - 32768)  # 64 kB
    spikes, out, ops = rate * T * n_in, rate * T * n_out, rate * T * macs
    snn = {
        "acs": ops * add,
        "weights": ops * e_par,
        "biases": T * n_out * e_par,
        "state": 2 * (ops + T * n_out) * e_out,
        "spikes": spikes * e_in + out * e_out,
        "addressing": 2 * spikes * mac + ops * add,
        "lif": T * n_out * (mac + add) + out * add,
    }
    twin = macs * (mac + e_in + e_par) + n_out * (add + e_par + e_out) + (n_in + n_out) * add
    priced = cost(Lemaire2022(), linear(c_in, c_out, tokens, rate, T))
    assert priced.parts == pytest.approx(snn)
    assert priced.ann_pJ == pytest.approx(twin)


def test_lemaire_charges_an_image_once_as_its_twin_does():
    """A dense layer on an image that stands still is the twin's layer."""
    image = replace(linear(64, 256, 16, 0.5)[0], values=Values.real, static=True)
    priced = cost(Lemaire2022(), [image])
    assert priced.snn_pJ == pytest.approx(priced.ann_pJ)
    assert isnan(priced.crossover)


# ---- yan2024_twin ----


@pytest.mark.parametrize(
    ("T", "bits", "expected"),
    [(3, 2, 0.0556), (4, 3, 0.0625), (5, 3, 0.05), (8, 4, 0.0417)],
)
def test_movement_breaks_even_at_the_price_of_an_event(T, bits, expected):
    """Movement alone: r* = b 0.25 / (T 3.0), with b bits for the T + 1 counts of a neuron."""
    model = replace(Yan2024Twin(), acc=0.0)
    for reuse in (1.0, 64.0, inf):
        priced = cost(replace(model, reuse=reuse), conv(96, 192, 32, 0.1, T))
        assert priced.crossover == pytest.approx(bits * 0.25 / (T * 3.0))
        assert priced.crossover == pytest.approx(expected, abs=6e-5)
    assert priced.twin == f"{bits}-bit QNN"


def test_with_arithmetic_a_transformer_wins_below_five_percent():
    """At T = 5 below 5.2 %, near the 5.7 % of the paper, whose accesses are not modelled."""
    _, neurons = parts = linear(4096, 64, 1, 0.1, 5)
    macs, n = parts[0].dense / 5, neurons.inputs / 5
    per_event, per_mac = ACC + 4.75 * 3.0, 3 * ACC + 3 * 4.75 * 0.25
    events = 5 * macs * per_event + 5 * n * ACC  # at a rate of one, with the resets
    crossover = cost(Yan2024Twin(), parts).crossover
    assert crossover == pytest.approx((macs * per_mac + n * ACC - 5 * n * ACC) / events)
    assert crossover == pytest.approx(0.052, abs=5e-4)


@pytest.mark.parametrize(
    ("T", "bits", "transformer"),
    [(3, 2, 1.500), (7, 3, 2.338), (15, 4, 3.762)],
)
def test_a_dense_network_costs_t_over_b(T, bits, transformer):
    """At a rate of one and equal movement T steps of one bit compete with one step of b bits.

    The paper's values for transformers are those of a reading note.
    """
    model = replace(Yan2024Twin(), sparse=0.25)
    parts = linear(4096, 64, 16, 1.0, T)
    assert cost(model, parts[:1]).ratio == pytest.approx(T / bits)
    assert cost(model, parts).ratio == pytest.approx(transformer, rel=5e-3)


def test_yan_prices_each_part():
    """Operations, accesses, one movement per operation, and the neuron; zeros spare the twin."""
    model = replace(Yan2024Twin(), weight_bit=20.3, state=2.0, sparsity=0.5, hops=2.0, reuse=4.0)
    priced = cost(model, linear(10, 20, 5, 0.25))
    assert priced.parts == {
        "acs": pytest.approx(1000 * ACC),
        "weights": pytest.approx(1000 * 4 * 20.3),
        "movement": pytest.approx(1000 / 4 * 2 * 3.0),
        "lif": pytest.approx(400 * ACC + 100 * ACC),
        "state": pytest.approx(2 * 400 * 2.0),
    }
    compute = 0.5 * 1000 * (3 * ACC + 4 * 20.3)
    assert priced.ann_pJ == pytest.approx(compute + 1000 / 4 * 3 * 2 * 0.25 + 100 * ACC)


def test_with_full_reuse_all_inputs_of_a_multiplying_layer_move():
    """Whole numbers move as words of b bits, zeros among them: that does not follow the spikes."""
    counts, _ = linear(10, 20, 5, 0.25)
    counted = apply(LayerTable([replace(counts, values=Values.integer)]), preset("neurobench"))
    priced = replace(Yan2024Twin(), reuse=inf).cost(counted)
    (moved,) = [item for item in priced.items if item.part == "movement"]
    assert moved.pJ == pytest.approx(4 * 50 * 3 * 4.75 * 0.25)
    assert not moved.follows_spikes
    assert priced.parts["macs"] == pytest.approx(1000 * 3 * ACC)


# ---- standard error ----


@pytest.mark.parametrize(
    ("model", "per_op"), [("horowitz45", ADD), ("memory_simple", ADD + ACCESS)]
)
def test_the_standard_error_is_that_of_totals_of_samples(model, per_op):
    """s/sqrt(n) of per-image totals: variances of layers, which rise together, do not add up."""
    rng = np.random.default_rng(0)
    n, share = 50, np.random.default_rng(1).uniform(0.5, 1.5, 50)
    ops = [np.round(1000 * share * rng.uniform(0.9, 1.1, n)) for _ in range(3)]
    parts = []
    for of_sample in ops:
        counts = dict(ops=of_sample.sum(), ops_by_value=of_sample.sum(), samples=n, dense=1e6)
        parts.append(layer(Kind.linear, **counts, ops_of_sample=torch.from_numpy(of_sample)))
    image = replace(parts[0], name="image", values=Values.real, static=True)
    found = cost(cost_model(model), [image, *parts]).se_pJ
    assert found == pytest.approx(per_op * sum(ops).std(ddof=1) / n**0.5)
    alone = per_op * sum(one.var(ddof=1) for one in ops) ** 0.5 / n**0.5
    assert found > 1.3 * alone


def test_one_sample_has_no_standard_error():
    """It is not a number rather than zero."""
    assert isnan(cost(cost_model("horowitz45"), linear(10, 20, 5, 0.25)).se_pJ)


# ---- names and constants ----


def test_an_unknown_model_is_told_in_one_line():
    """The setting, the names, the value and the nearest name."""
    with pytest.raises(SettingError) as error:
        cost_model("lemair2022")
    line = str(error.value)
    assert line.startswith("energy.costs must be one of horowitz45, ")
    assert line.endswith("not lemair2022. Did you mean 'lemaire2022'?")
    assert "\n" not in line


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_a_model_is_frozen_and_says_where_its_constants_are_from(name):
    """No field can be changed behind a result; the text names the node and a source."""
    model = cost_model(name)
    assert model.name == name
    for field in fields(model):
        with pytest.raises(FrozenInstanceError):
            setattr(model, field.name, getattr(model, field.name))
    text = " ".join(type(model).__doc__.split())
    assert model.technology in text
    assert "arXiv" in text or "ISSCC" in text


def test_silence_has_no_crossover_and_no_twin_no_ratio():
    """Where nothing fires or nothing is compared the answer is not a number."""
    silent = cost(cost_model("horowitz45"), linear(10, 20, 5, 0.0))
    assert (silent.snn_pJ, silent.ratio) == (0, 0)
    assert isnan(silent.crossover) and isnan(silent.ratio_at(0.1))
    nothing = cost(cost_model("horowitz45"), [])
    assert (nothing.snn_pJ, nothing.ann_pJ) == (0, 0)
    assert isnan(nothing.ratio)


def test_a_picture_in_bytes_does_not_follow_the_firing_rate():
    """Its nonzero pixels stay when the network fires less, also where each is multiplied."""
    spikes, _ = linear(10, 20, 5, 0.1)
    image = replace(spikes, name="image", values=Values.integer, static=True, nonzero=30, ops=600)
    counted = apply(LayerTable([image, spikes]), preset("neurobench"))
    crossover = cost_model("horowitz45").cost(counted).crossover
    assert crossover == pytest.approx((2000 * 4.6 - 600 * 4.6) / (4 * 1000 * 0.9))
