"""Accuracy over energy: what was drawn is what run folders say, and its legend explains it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from plot_runs import fabricate
from plot_tables import boxes, caption, drawn, measured, panel, shared, table_of

from saformer import figure_style as style
from saformer.errors import SettingError
from saformer.results.plots.pareto import front, pareto
from saformer.results.plots.peers import peers
from saformer.results.published import Figure as Known
from saformer.results.published import Provenance, Source
from saformer.results.tables import Row, Table
from saformer.runs.folder import find


@pytest.fixture(autouse=True)
def for_print() -> Iterator[None]:
    with style.printed():
        yield


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30))
def test_the_front_is_what_nothing_dominates(points):
    """No point of the front is dominated, every other one is; it comes by rising cost."""

    def dominated(point: tuple[int, int]) -> bool:
        cost, gain = point
        return any(c <= cost and g >= gain and (c, g) != point for c, g in points)

    kept = front([cost for cost, _ in points], [gain for _, gain in points])
    assert set(kept) == {i for i, point in enumerate(points) if not dominated(point)}
    assert [points[i] for i in kept] == sorted(points[i] for i in kept)


def test_pareto_equals_the_results(composed):
    """Each point is the mean over seeds, its bars the sample deviations, the line the front."""
    fig = pareto(table_of(composed))
    for dataset in ("digits", "digits_events"):
        ax = panel(fig, dataset)
        assert ax.get_xlabel() == "energy per image (µJ),\nestimated, convention exact"
        points = []
        for steps in (1, 4):
            for label in ("SAFormer", "no DWC"):
                accuracies, energies = measured(label, dataset, steps)
                x, y, halves = drawn(ax, f"{dataset}, T = {steps}: {label}")
                assert (x, y) == (
                    [pytest.approx(mean(energies))],
                    [pytest.approx(mean(accuracies))],
                )
                assert halves == [
                    [pytest.approx(stdev(energies))],
                    [pytest.approx(stdev(accuracies))],
                ]
                points.append((x[0], y[0]))
        (line,) = [line for line in ax.lines if line.get_label() == "front"]
        expected = [points[i] for i in front(*zip(*points, strict=True))]
        assert list(zip(*line.get_data(), strict=True)) == expected
        assert line.get_drawstyle() == "steps-post" and len(expected) == 2
    said = caption(fig)
    assert "Two networks. Means and sample standard deviations (bars) over 3 seeds." in said
    assert "best epoch on validation" in said and "estimate" in said and "missing" not in said


def row_of(composed, *known: tuple[Known, Source]) -> Row:
    row = composed[1][0]
    return Row("", "ours", [], row.config, [0], list(known))


def test_published_points_have_their_sources(composed):
    """A point is one source's, or two sources' on one network; without energy it is a dash."""

    def said(source: str, **figures: float) -> tuple[Known, Source]:
        known = Known(method="Peer", dataset="digits", **figures)
        return known, Source(source=source, provenance=Provenance.readme)

    row = row_of(
        composed,
        said("one", top1=70.0, energy_mJ=7.0),
        said("two", energy_mJ=12.0),
        said("three", top1=71.0),
        said("four", params_M=3.0),
    )
    table = Table("t", "T", {}, [row], [])
    twice, cited = replace(table, rows=[row, row]), {}
    found = [(peer.accuracy, peer.energy, peer.sources) for peer in peers(twice, "digits", cited)]
    assert found == [(70.0, 7.0, (1,)), (70.0, 12.0, (1, 2)), (71.0, None, (3,))]
    assert [text.partition(" ")[0] for text in cited] == ["one", "two", "three"]
    assert peers(table, "cifar10", cited) == []

    fabricate([row], Path("outputs"), lambda row, seed: {"top1": 72.0, "energy": 1.0})
    row.runs = {run.seed: run for run in find(Path("outputs"))[0]}
    fig = pareto(table)
    (ax,) = fig.axes
    grey = {text.get_text(): text.get_position() for text in ax.texts}
    assert grey == {"a": (7, 70), "b": (12, 70), "c": (1.04, 71)}  # right of the panel
    explained, ours = map(names, fig.legends)  # the lowest first
    assert ours == ["ours"] and explained == ["a  Peer [1]", "b  Peer [1, 2]", "c  Peer [3]"]
    low, high = ax.get_xlim()
    assert low < 1 and high > 12
    assert "conventions of their sources" in caption(fig)
    assert "[2] two (README of a repository)." in caption(fig)
    assert "Published figures do not compare" in caption(fig)


def marks_of(fig: Figure) -> dict[str, tuple[str, str]]:
    """Colour and marker of each point, by the name of its row."""
    found = [one for ax in fig.axes for one in ax.containers]
    return {one.get_label(): (one.lines[0].get_color(), one.lines[0].get_marker()) for one in found}


def test_the_legend_tells_labels_and_sections_apart(composed):
    """A label has a marker in all panels; its section has the colour where it stands in several."""
    table = table_of(composed)
    fig = pareto(table)
    colours, shapes = (  # the lowest first
        dict(zip(names(one), one.legend_handles, strict=True)) for one in fig.legends
    )
    assert list(shapes) == ["SAFormer", "no DWC"] and len(colours) == 4
    assert len({line.get_marker() for line in shapes.values()}) == 2
    assert len({line.get_color() for line in colours.values()}) == 4
    for row in table.rows:
        marker, colour = shapes[row.label].get_marker(), colours[row.section].get_color()
        assert marks_of(fig)[row.name] == (colour, marker)

    one = replace(table, rows=[row for row in table.rows if row.section[-1] == "1"])
    fig = pareto(one)  # a section each, which the titles name
    assert [ax.get_title(loc="left") for ax in fig.axes] == [
        "digits, T = 1 (digits)",
        "digits_events, T = 1 (digits_events)",
    ]
    (legend,) = fig.legends
    both = [(line.get_color(), line.get_marker()) for line in legend.legend_handles]
    assert [marks_of(fig)[row.name] for row in one.rows] == both * 2
    assert len({colour for colour, _ in both}) == len({marker for _, marker in both}) == 2

    alone = [replace(row, label=f"{row.label} {row.section}") for row in table.rows]
    (legend,) = pareto(replace(table, rows=alone)).legends
    assert sorted(names(legend)) == sorted(f"{row.section}: {row.label}" for row in alone)


def names(legend: Legend) -> list[str]:
    return [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize(
    ("labels", "sections", "answer"),
    [
        (13, 2, "table two has 13 labels, and a figure tells 12 apart: describe"),
        (2, 8, "table two has 8 sections, and a figure tells 7 apart: describe"),
        (85, 1, "table two has 85 labels, and a figure tells 84 apart: describe"),
    ],
)
def test_more_than_a_figure_tells_apart_is_refused(composed, labels, sections, answer):
    """Rows that would look alike are refused, and as many as can look apart do."""
    table = table_of(composed)

    def of(labels: int, sections: int) -> Table:
        rows = [
            replace(table.rows[0], label=f"label {i}", section=f"section {j}")
            for i in range(labels)
            for j in range(sections)
        ]
        return replace(table, rows=rows)

    with pytest.raises(SettingError, match=answer):
        pareto(of(labels, sections))
    fits = (labels - 1, sections) if labels > sections else (labels, sections - 1)
    assert len(set(marks_of(pareto(of(*fits))).values())) == fits[0] * fits[1]


def test_accuracies_without_an_energy_cover_nothing(composed):
    """Letters of equal accuracies stand beside each other, right of the panel and on the page."""
    known = [
        (
            Known(method=f"Peer {i}", dataset="digits", top1=95.0 + i / 100),
            Source(source="one", provenance=Provenance.readme),
        )
        for i in range(6)
    ]
    row = row_of(composed, *known)
    fabricate([row], Path("outputs"), lambda row, seed: {"top1": 72.0, "energy": 1.0})
    row.runs = {run.seed: run for run in find(Path("outputs"))[0]}
    fig = pareto(Table("t", "T", {}, [row], []))
    fig.draw_without_rendering()
    (ax,) = fig.axes
    found = boxes(ax.texts, fig)
    assert len(found) == 6
    for i, box in enumerate(found):
        assert all(shared(box, other) == 0 for other in found[:i])
    assert (found[:, 0] > ax.get_window_extent().x1).all()
    assert (found[:, 2] <= fig.get_size_inches()[0] * fig.dpi).all()


def test_ties_and_zero_deviations(composed):
    """Rows of equal energy and accuracy are all on the front, and panels keep a height."""
    table = table_of(composed, lambda row, seed: {"top1": 95.0, "energy": 1e-3})
    fig = pareto(table)
    ax = panel(fig, "digits")
    (line,) = [line for line in ax.lines if line.get_label() == "front"]
    assert line.get_xdata().tolist() == pytest.approx([1] * 4)
    assert np.ptp(ax.get_ylim()) == pytest.approx(1)
    assert drawn(ax, "digits, T = 1: SAFormer")[2] == [[0], [0]]
