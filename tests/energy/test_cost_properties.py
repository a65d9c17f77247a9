"""What holds of the price of any network: properties, over layers of all kinds."""

from dataclasses import replace
from math import inf, isfinite, isnan

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from priced_layers import ACC, ADD, linear

from saformer.energy.conventions import EXACT, PRESETS, Counted, apply
from saformer.energy.costs import MODELS, Yan2024Twin
from saformer.energy.table import Kind, Layer, LayerTable, Values

COUNTS = ("nonzero", "value_sum", "ops", "ops_by_value", "ops_left", "ops_right")
VARIANTS = [
    *MODELS.values(),
    replace(Yan2024Twin(), reuse=inf, state=1.0, weight_bit=20.3, sparsity=0.5),
]


@st.composite
def tables(draw) -> LayerTable:
    """Layers of all kinds with counts that need not fit together: prices must not care."""
    T, n = draw(st.integers(1, 16)), draw(st.integers(1, 3))
    count = st.integers(1, 10**6).map(float)

    def one(i: int) -> Layer:
        inputs, dense = draw(count), draw(count)
        share = draw(st.floats(0.01, 1))
        return Layer(
            name=f"layer.{i}",
            kind=draw(st.sampled_from(Kind)),
            values=draw(st.sampled_from(Values)),
            samples=n,
            timesteps=T,
            static=draw(st.booleans()),
            last=draw(st.booleans()),
            inputs=inputs,
            nonzero=share * inputs,
            value_sum=share * inputs * draw(st.floats(1, 4)),
            outputs=draw(count),
            dense=dense,
            dense_padded=dense * draw(st.floats(1, 2)),
            bias_adds=draw(count),
            weights=draw(st.integers(1, 10**7)),
            ops=share * dense,
            ops_by_value=share * dense * draw(st.floats(1, 4)),
            ops_left=draw(count),
            ops_right=draw(count),
        )

    return LayerTable([one(i) for i in range(draw(st.integers(1, 6)))])


def scaled(table: LayerTable, factor: float) -> LayerTable:
    """The same network with `factor` times as many spikes; the image stays what it is."""
    return LayerTable(
        [
            one
            if one.static or one.values is Values.real
            else replace(one, **{name: factor * getattr(one, name) for name in COUNTS})
            for one in table.layers
        ]
    )


conventions = st.sampled_from(list(PRESETS.values()))
models = st.sampled_from(VARIANTS)


@given(tables(), conventions, models)
def test_no_energy_is_negative_and_the_ratio_is_that_of_the_totals(table, convention, model):
    """Every part of every layer, the twin, and what stands beside; the total is its parts."""
    priced = model.cost(apply(table, convention))
    assert all(item.pJ >= 0 for item in [*priced.items, *priced.beside])
    for parts in (priced.parts, priced.layers):
        assert sum(parts.values()) == pytest.approx(priced.snn_pJ)
    assert priced.ann_pJ >= 0
    if priced.ann_pJ:
        assert priced.ratio == priced.snn_pJ / priced.ann_pJ
    else:
        assert isnan(priced.ratio)


@given(tables(), conventions, models, st.floats(1.5, 10))
def test_energy_is_linear_in_the_spikes(table, convention, model, factor):
    """E(k spikes) = fixed + k events, and the twin knows nothing of spikes."""
    few, some, many = (
        model.cost(apply(scaled(table, k), convention)) for k in (1.0, factor, 2 * factor - 1)
    )
    assert few.snn_pJ + many.snn_pJ == pytest.approx(2 * some.snn_pJ)
    assert few.ann_pJ == pytest.approx(many.ann_pJ)


@given(tables(), models, st.floats(0, 10))
def test_energy_is_linear_in_the_accumulates(table, model, factor):
    """k times the accumulates of every row are k times its energy for accumulates."""
    counted = apply(table, EXACT)
    rows = [replace(row, acs=factor * row.acs) for row in counted.rows]
    more = Counted(counted.convention, rows, counted.samples, counted.timesteps)
    before, after = model.cost(counted), model.cost(more)
    expected = factor * before.parts.get("acs", 0.0)
    assert after.parts.get("acs", 0.0) == pytest.approx(expected)
    per_ac = {"yan2024_twin": ACC, "lemaire2022": 0.1, "horowitz45_fp16": 0.4}
    per_ac |= {"horowitz45_int8": 0.03}
    priced = [row for row in counted.rows if row.acs]
    if model.name == "lemaire2022":  # has no terms for attention
        priced = [row for row in priced if row.kind in (Kind.conv, Kind.linear)]
    acs = sum(row.acs for row in priced)
    assert before.parts.get("acs", 0.0) == pytest.approx(acs * per_ac.get(model.name, ADD))


@given(tables(), conventions, models)
def test_at_the_crossover_both_networks_cost_the_same(table, convention, model):
    """Scale all spikes so that the mean rate is r*, and the energies meet.

    A large layer on spikes stands in front, since small networks rarely win at any rate.
    """
    large = linear(1000, 1000, 50, 0.1, table.timesteps)[0]
    table = LayerTable([replace(large, samples=table.samples), *table.layers])
    counted = apply(table, convention)
    priced = model.cost(counted)
    assume(isfinite(priced.crossover) and priced.crossover > 0)
    there = model.cost(apply(scaled(table, priced.crossover / priced.rate), convention))
    assert there.snn_pJ == pytest.approx(there.ann_pJ)
    assert there.ann_pJ == pytest.approx(priced.ann_pJ)
    # The line that a report draws runs through both points.
    assert priced.ratio_at(priced.crossover) == pytest.approx(1)
    assert priced.ratio_at(priced.rate) == pytest.approx(priced.ratio)
