"""Each convention charges what it says, and what must hold of any network holds of random ones."""

from dataclasses import fields, replace

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.nn.functional import conv2d, one_hot

from saformer.energy.conventions import EXACT, PRESETS, STRICT, Convention, Static, apply, preset
from saformer.energy.costs import FP32, cost_model
from saformer.energy.settings import CONVENTIONS, COSTS, EnergyConfig
from saformer.energy.table import Kind, Layer, LayerTable, Values, merge
from saformer.errors import SettingError

T = 4


def layer(kind: Kind = Kind.linear, values: Values = Values.binary, **counts) -> Layer:
    """A layer of one sample and four timesteps, of which the counts that matter are given."""
    named = {"name": f"block.0.{kind.value}", "samples": 1, "timesteps": T} | counts
    return Layer(kind=kind, values=values, **named)


def counted(one: Layer, convention: Convention = EXACT) -> tuple[float, float]:
    """Accumulates and multiply-accumulates of one layer."""
    result = apply(LayerTable([one]), convention)
    return result.acs, result.macs


# One layer of every kind; all numbers differ so that none can stand for another.
SPIKES = dict(inputs=100, nonzero=20, value_sum=20, dense=1000, dense_padded=1200, bias_adds=40)
SPIKES |= dict(ops=180, ops_by_value=180)
COUNTS = SPIKES | dict(nonzero=20, value_sum=30, ops=180, ops_by_value=260)
IMAGE = SPIKES | dict(nonzero=90, value_sum=-7, ops=900, ops_by_value=-60)
PRODUCT = dict(dense=1000, ops=50, ops_by_value=60, ops_left=300, ops_right=200)


@pytest.mark.parametrize(
    ("convention", "charged"),
    [
        ("exact", (180, 0)),
        ("spikformer_paper", (240, 0)),
        ("spikingformer_script", (248, 0)),
        ("sdt", (240, 0)),
        ("neurobench", (180, 0)),
        ("strict", (180, 0)),
    ],
)
def test_spikes_accumulate(convention, charged):
    """Inside the image, or rate x FLOPs with the padding, with the bias only in the script."""
    assert counted(layer(**SPIKES), preset(convention)) == pytest.approx(charged)


@pytest.mark.parametrize(
    ("convention", "charged"),
    [
        ("exact", (260, 0)),
        ("spikformer_paper", (360, 0)),
        ("spikingformer_script", (0, 1240)),
        ("sdt", (240, 0)),
        ("neurobench", (0, 180)),
        ("strict", (0, 1000)),
    ],
)
def test_whole_numbers_are_where_conventions_part(convention, charged):
    """AC by value, AC by mean, dense MAC, AC by the nonzero share, MAC of the nonzero."""
    one = layer(values=Values.integer, **COUNTS)
    assert counted(one, preset(convention)) == pytest.approx(charged)


@pytest.mark.parametrize(
    ("convention", "macs"),
    [
        ("exact", 250),
        ("spikformer_paper", 300),
        ("spikingformer_script", 1240),
        ("sdt", 1200),
        ("neurobench", 900),
        ("strict", 1000),
    ],
)
@pytest.mark.parametrize("values", [Values.real, Values.integer])
def test_an_image_is_multiplied_once_or_in_every_step(convention, macs, values):
    """An image, also one in raw bytes, is MAC: dense, or what is not black."""
    one = layer(values=values, static=True, **IMAGE)
    assert counted(one, preset(convention)) == pytest.approx((0, macs))


def test_a_real_input_that_changes_is_multiplied_in_every_step():
    """Normalised event frames differ from step to step: no step can be spared."""
    assert counted(layer(values=Values.real, **IMAGE)) == (0, 1000)


def test_spikes_of_a_still_image_are_sent_in_every_step():
    """A black and white image shown T times sends its spikes T times."""
    assert counted(layer(static=True, **SPIKES)) == (180, 0)


@pytest.mark.parametrize(
    ("convention", "on_spikes", "on_numbers"),
    [
        ("exact", (180, 0), (0, 1000)),
        ("spikformer_paper", (0, 1200), (0, 1200)),
        ("spikingformer_script", (0, 1240), (0, 1240)),
        ("sdt", (240, 0), (1080, 0)),
        ("neurobench", (180, 0), (0, 900)),
        ("strict", (0, 1000), (0, 1000)),
    ],
)
def test_the_head(convention, on_spikes, on_numbers):
    """As its input says where that is exact; always MAC or always AC where a paper says so."""
    chosen = preset(convention)
    assert counted(layer(last=True, **SPIKES), chosen) == pytest.approx(on_spikes)
    real = layer(last=True, values=Values.real, **IMAGE)
    assert counted(real, chosen) == pytest.approx(on_numbers)


@pytest.mark.parametrize(
    ("convention", "of_both", "of_left", "of_right"),
    [
        ("exact", 50, 50, 50),
        ("spikformer_paper", 300, 300, 200),
        ("spikingformer_script", 200, 300, 200),
        ("sdt", 300, 300, 200),
        ("neurobench", 0, 0, 0),
        ("strict", 50, 50, 50),
    ],
)
def test_products_of_attention(convention, of_both, of_left, of_right):
    """Pairs that meet, all that the one operand drives which holds spikes, or nothing."""
    chosen = preset(convention)
    spikes, counts = Values.binary, Values.integer
    for operands, expected in (
        ((spikes, spikes), of_both),
        ((spikes, counts), of_left),
        ((counts, spikes), of_right),
    ):
        values = spikes if counts not in operands else counts
        product = layer(Kind.matmul, values, operands=operands, **PRODUCT)
        assert counted(product, chosen) == (expected, 0)


def test_a_product_of_real_numbers_is_multiplied():
    """No spike selects what to add, so nothing is accumulated."""
    one = layer(Kind.matmul, Values.real, **PRODUCT, dense_padded=1000)
    assert counted(one) == (0, 1000)
    assert counted(one, preset("neurobench")) == (0, 0)


def test_sums_accumulate_and_masks_are_free_but_in_sdt():
    """A sum is one AC per spike; an AND costs nothing unless R^ N D charges it."""
    spikes = dict(inputs=100, nonzero=20, outputs=80, ops=15)
    for name in CONVENTIONS:
        expected = 0 if name == "neurobench" else 15
        assert counted(layer(Kind.sum, **spikes), preset(name)) == (expected, 0)
        expected = 16 if name == "sdt" else 0
        assert counted(layer(Kind.mask, **spikes), preset(name)) == (expected, 0)


@pytest.mark.parametrize("kind", [Kind.max, Kind.add, Kind.neuron])
def test_nothing_else_is_charged(kind):
    """An OR, a residual addition and a neuron are rows of their own, without operations."""
    one = layer(kind, Values.real, **IMAGE)
    for chosen in PRESETS.values():
        assert counted(one, chosen) == (0, 0)


def test_a_row_stands_for_every_layer():
    """Rows keep name, kind, stage and order; totals are per image."""
    table = LayerTable([layer(**SPIKES, samples=2), layer(Kind.neuron, samples=2)])
    result = apply(table, EXACT)
    assert [row.name for row in result.rows] == ["block.0.linear", "block.0.neuron"]
    assert [row.kind for row in result.rows] == [Kind.linear, Kind.neuron]
    assert [row.stage for row in result.rows] == ["block.linear", "block.neuron"]
    assert (result.acs, result.rows[0].acs, result.samples, result.timesteps) == (90, 90, 2, T)
    assert result.dense == 1000 / 2 / T
    assert result.rate == pytest.approx(0.2)


def test_an_empty_table_counts_nothing():
    """No layer, no operation."""
    result = apply(LayerTable([]), EXACT)
    assert (result.acs, result.macs, result.dense, result.rate) == (0, 0, 0, 0)


def test_a_layer_without_inputs_fires_at_no_rate():
    """Neither the share of its inputs nor their mean is a division by nothing."""
    none = layer(Kind.linear)
    assert (none.inputs, none.rate, none.mean) == (0, 0, 0)


def test_only_the_first_weight_layer_may_meet_numbers():
    """Every other reader of spikes that was given anything else is named."""
    kinds = {"image": Kind.conv, "stem": Kind.conv, "sum": Kind.add, "head": Kind.linear}
    layers = [replace(layer(kind, Values.real), name=name) for name, kind in kinds.items()]
    assert LayerTable(layers).not_spikes == ["stem", "head"]


def test_names_are_told_in_one_line():
    """A name that is not known is answered with the nearest one; the lists are the same."""
    assert tuple(PRESETS) == CONVENTIONS
    with pytest.raises(SettingError, match=r"^energy.convention must be one of exact, .* not exct"):
        preset("exct")
    with pytest.raises(SettingError, match=r"not strikt\. Did you mean 'strict'\?$"):
        EnergyConfig(convention="strikt")
    with pytest.raises(SettingError, match="'lemaire2022'"):
        EnergyConfig(costs=["horowitz45", "lemaire"])
    with pytest.raises(SettingError, match=r"energy.samples must be at least 1, not 0"):
        EnergyConfig(samples=0)
    with pytest.raises(SettingError, match=r"energy.every_n_epochs must be at least 1, not 0"):
        EnergyConfig(every_n_epochs=0)
    assert EnergyConfig().costs == list(COSTS)


def test_presets_differ_in_fields_one_can_see():
    """No two conventions make the same choices."""
    choices = {
        tuple(getattr(chosen, field.name) for field in fields(Convention) if field.name != "name")
        for chosen in PRESETS.values()
    }
    assert len(choices) == len(PRESETS)


# ---- what holds of any network: random tensors, counted by brute force ----


def conv(x: torch.Tensor, c_out: int, **settings) -> Layer:
    """A 3 x 3 convolution with stride and padding one on x [n, T, C, H, W]."""
    c_in = x.shape[2]
    ones = torch.ones(1, 1, *x.shape[3:], dtype=torch.float64)
    fan_out = conv2d(ones, torch.ones(1, 1, 3, 3, dtype=torch.float64), padding=1) * c_out
    of_sample = ((x != 0) * fan_out).flatten(1).sum(1)
    return weighted(x, c_in, c_out, fan_out, of_sample, 9.0 * c_out, **settings)


def linear(x: torch.Tensor, c_out: int, **settings) -> Layer:
    """A linear layer on x [n, T, C, H, W], one token a pixel."""
    fan_out = torch.full(x.shape[-2:], float(c_out), dtype=torch.float64)
    of_sample = ((x != 0) * fan_out).flatten(1).sum(1)
    return weighted(x, x.shape[2], c_out, fan_out, of_sample, float(c_out), **settings)


def weighted(x, c_in, c_out, fan_out, of_sample, most, **settings) -> Layer:
    n, steps = x.shape[:2]
    whole = Values.binary if x.max() <= 1 else Values.integer
    return Layer(
        **{"values": whole, "samples": n, "timesteps": steps} | settings,
        inputs=x.numel(),
        nonzero=(x != 0).sum().item(),
        value_sum=x.sum().item(),
        outputs=x[:, :, 0].numel() * c_out,
        dense=n * steps * c_in * fan_out.sum().item(),
        dense_padded=x.numel() * most,
        bias_adds=x[:, :, 0].numel() * c_out,
        weights=int(most) * c_in,
        ops=of_sample.sum().item(),
        ops_by_value=(x * fan_out).sum().item(),
        ops_of_sample=of_sample,
    )


def product(a: torch.Tensor, b: torch.Tensor, name: str) -> Layer:
    """The product a @ b of spikes [n, T, tokens, d] and [n, T, d, tokens]."""
    pairs = (a != 0).double() @ (b != 0).double()
    return Layer(
        name=name,
        kind=Kind.matmul,
        values=Values.binary,
        samples=a.shape[0],
        timesteps=a.shape[1],
        inputs=a.numel() + b.numel(),
        nonzero=(a != 0).sum().item() + (b != 0).sum().item(),
        outputs=pairs.numel(),
        dense=pairs.numel() * a.shape[-1],
        dense_padded=pairs.numel() * a.shape[-1],
        ops=pairs.sum().item(),
        ops_by_value=(a @ b).sum().item(),
        ops_left=(a != 0).sum().item() * b.shape[-1],
        ops_right=(b != 0).sum().item() * a.shape[-2],
        ops_of_sample=pairs.flatten(1).sum(1),
    )


@st.composite
def networks(draw, least=1, steps=4):
    """Inputs [n, T, C, H, W] of every layer of a network of random sizes, and its width."""
    rng = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    shape = [draw(st.integers(least, 4)), draw(st.integers(1, steps)), draw(st.integers(1, 3))]
    shape += 2 * [draw(st.integers(1, 5))]
    rate = draw(st.floats(0, 1))

    def spikes() -> torch.Tensor:
        return (torch.rand(shape, generator=rng, dtype=torch.float64) < rate).double()

    frame = torch.randn(shape[0], 1, *shape[2:], generator=rng, dtype=torch.float64)
    counts = sum(spikes() for _ in range(draw(st.integers(1, 4))))
    inputs = [frame.expand(shape), spikes(), counts, spikes(), spikes(), spikes()]
    return inputs, draw(st.integers(1, 3))


def count(inputs: list[torch.Tensor], c_out: int) -> LayerTable:
    """Image, convolution, layer on a residual stream that adds spikes, product, head."""
    image, spikes, counts, q, k, last = inputs
    first = dict(name="stem.0", kind=Kind.conv, values=Values.real, static=True)
    return LayerTable(
        [
            conv(image, c_out, **first),
            conv(spikes, c_out, name="stem.1", kind=Kind.conv),
            linear(counts, c_out, name="block.0.fc1", kind=Kind.linear, values=Values.integer),
            product(q.flatten(3).mT, k.flatten(3), "block.0.qk"),
            linear(last, 7, name="head", kind=Kind.linear, last=True),
        ]
    )


tables = networks().map(lambda network: count(*network))


def picojoules(table: LayerTable, convention: Convention) -> float:
    return cost_model("horowitz45").cost(apply(table, convention)).snn_pJ


@given(tables)
def test_no_layer_does_more_than_its_dense_work(table):
    """Rates lie in [0, 1]; exact counts of spikes stay below dense, dense below padded ones."""
    for one in table.layers:
        assert 0 <= one.rate <= 1
        if one.values is Values.binary:
            assert one.ops <= one.dense <= one.dense_padded
    for row in apply(table, replace(EXACT, static=Static.per_step)).rows:
        if row.layer.values is not Values.integer:
            assert row.acs + row.macs <= row.dense * row.steps + 1e-9


@given(tables)
def test_exact_is_not_above_the_paper(table):
    """With conv1 treated alike, leaving padding and lone operands out can only lower the sum."""
    paper = picojoules(table, preset("spikformer_paper"))
    assert picojoules(table, EXACT) <= paper * (1 + 1e-12)


@given(tables)
def test_strict_bounds_exact(table):
    """As long as whole numbers stay below E_MAC / E_AC on average."""
    assert all(one.mean <= FP32.mac / FP32.add for one in table.layers)
    assert picojoules(table, EXACT) <= picojoules(table, STRICT) * (1 + 1e-12)


@given(tables)
def test_energy_is_at_least_an_addition_for_each_operation(table):
    """E/OPs >= 0.9 mJ/G under every convention."""
    for chosen in PRESETS.values():
        result = apply(table, chosen)
        energy = cost_model("horowitz45").cost(result).snn_pJ
        assert energy >= FP32.add * (result.acs + result.macs) * (1 - 1e-12)


@given(networks(least=2), st.floats(0, 1))
def test_totals_add_up_over_samples(network, share):
    """Tables of two batches merge into that of both (the script's minimum is one of means)."""
    inputs, c_out = network
    n = len(inputs[0])
    cut = 1 + round(share * (n - 2))
    parts = [count([x[:cut] for x in inputs], c_out), count([x[cut:] for x in inputs], c_out)]
    for name, chosen in PRESETS.items():
        whole, merged = apply(count(inputs, c_out), chosen), apply(merge(parts), chosen)
        assert (merged.acs, merged.macs) == pytest.approx((whole.acs, whole.macs))
        if name == "spikingformer_script":
            continue
        batches = [apply(part, chosen) for part in parts]
        assert merged.acs * n == pytest.approx(sum(one.acs * one.samples for one in batches))
        assert merged.macs * n == pytest.approx(sum(one.macs * one.samples for one in batches))


@given(tables, st.sampled_from(sorted(PRESETS)))
def test_the_same_samples_twice_change_nothing(table, name):
    """Counts per image do not depend on how many images there are, nor on the order of layers."""
    once = apply(table, preset(name))
    twice = apply(merge([table, table]), preset(name))
    turned = apply(LayerTable(table.layers[::-1]), preset(name))
    for other in (twice, turned):
        assert (other.acs, other.macs) == pytest.approx((once.acs, once.macs))
        assert other.rate == pytest.approx(once.rate)


@given(networks(steps=1))
def test_one_timestep_knows_no_difference_between_once_and_per_step(network):
    """At T = 1 the first layer counts the same either way."""
    table = count(*network)
    per_step = apply(table, replace(EXACT, static=Static.per_step))
    assert apply(table, EXACT).macs == per_step.macs


@given(tables)
def test_shares_of_samples_average_to_one(table):
    """What varies between samples keeps its mean; a dense layer does not vary."""
    for row in apply(table, EXACT).rows:
        if row.of_sample.numel():
            assert row.of_sample.mean().item() == pytest.approx(1)
    assert not apply(table, EXACT).rows[0].of_sample.numel()


@given(st.integers(0, 2**31), st.floats(0.05, 0.95))
def test_padding_is_what_the_paper_adds_to_a_full_map(seed, rate):
    """Uniform firing: paper over exact tends to (3H / (3H - 2))^2 of a 3 x 3 convolution."""
    rng = torch.Generator().manual_seed(seed)
    full = torch.ones(1, T, 2, 8, 8, dtype=torch.float64)
    some = (torch.rand(full.shape, generator=rng, dtype=torch.float64) < rate).double()
    assume(some.sum() > 0)
    one = LayerTable([conv(full, 4, name="stem.1", kind=Kind.conv)])
    ratio = apply(one, preset("spikformer_paper")).acs / apply(one, EXACT).acs
    assert ratio == pytest.approx((24 / 22) ** 2)
    sparse = LayerTable([conv(some, 4, name="stem.1", kind=Kind.conv)])
    assert apply(sparse, preset("spikformer_paper")).acs >= apply(sparse, EXACT).acs


def test_a_stride_can_turn_padding_around():
    """Where a stride gives pixels unequal fan-outs, the paper can also be below exact."""
    lone = one_hot(torch.tensor(3), 16).double().reshape(4, 4)
    fan_out = torch.tensor([[1, 2, 1, 1], [2, 4, 2, 2], [1, 2, 1, 1], [1, 2, 1, 1]]).double()
    spikes = lone.roll(2)  # one spike, on the pixel that four outputs see
    ops = (spikes * fan_out).sum().item()
    one = layer(
        Kind.conv,
        inputs=16,
        nonzero=1,
        value_sum=1,
        dense=fan_out.sum().item(),
        dense_padded=36,
        ops=ops,
        ops_by_value=ops,
    )
    assert counted(one)[0] == 4 > counted(one, preset("spikformer_paper"))[0]
