"""What the figures show is what run folders say; read back from what was drawn."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from plot_runs import fabricate

from saformer import figure_style as style
from saformer.errors import SettingError
from saformer.results import rows as table_rows
from saformer.results.plots.bars import bars
from saformer.results.plots.labels import Labels
from saformer.results.plots.pareto import front, pareto
from saformer.results.plots.peers import peers
from saformer.results.plots.timesteps import timesteps
from saformer.results.published import Figure as Known
from saformer.results.published import Provenance, Source
from saformer.results.settings import TableConfig, read_table
from saformer.results.tables import Row, Table
from saformer.runs.folder import find

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


@pytest.fixture(autouse=True)
def for_print() -> Iterator[None]:
    with style.printed():
        yield


@pytest.fixture(scope="module")
def composed(tmp_path_factory) -> tuple[TableConfig, list[Row]]:
    """The rows of TABLE, composed once."""
    path = tmp_path_factory.mktemp("table") / "two.yaml"
    path.write_text(yaml.safe_dump(TABLE))
    config = read_table(path)
    return config, table_rows.compose_rows("two", config, [])


def numbers(row: Row, seed: int) -> dict[str, float]:
    """Distinct numbers for each row and seed; more energy and accuracy with more T."""
    steps, plain = row.config["timesteps"], row.label == "no DWC"
    events = row.config["dataset"]["name"] == "digits_events"
    top1 = 90 + steps + 1.5 * plain - 0.4 * events + 0.3 * seed**2
    return {"top1": top1, "energy": 1e-3 * steps * (1.3 - 0.2 * plain) * (1 + 0.01 * seed)}


def table_of(composed, given=numbers) -> Table:
    config, rows = composed
    fabricate(rows, Path("outputs"), given)
    return table_rows.collect("two", config, rows, Path("outputs"))


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


def caption(fig: Figure) -> str:
    return " ".join(max((text.get_text() for text in fig.texts), key=len).split())


def test_timesteps_equals_the_results(composed):
    """A line is one network over T, above its accuracy, below its energy."""
    fig = timesteps(table_of(composed))
    for column, dataset in enumerate(("digits", "digits_events")):
        above, below = fig.axes[column], fig.axes[2 + column]
        assert above.get_title(loc="left") == dataset
        assert [tick.get_text() for tick in below.get_xticklabels()] == ["1", "4"]
        for label in ("SAFormer", "no DWC"):
            both = [measured(label, dataset, steps) for steps in (1, 4)]
            for i, ax in enumerate((above, below)):
                x, y, (halves,) = drawn(ax, label)
                assert y == [pytest.approx(mean(values[i])) for values in both]
                assert halves == [pytest.approx(stdev(values[i])) for values in both]
                assert np.round(x).tolist() in ([1, 4], [1, 5], [1, 3])  # set apart sideways
    assert len({drawn(fig.axes[0], label)[0][0] for label in ("SAFormer", "no DWC")}) == 2
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["SAFormer", "no DWC"]


def test_a_line_over_t_is_one_network(composed):
    """Rows that differ in more than T are no line; without any, that is said."""
    table = table_of(composed)
    rows = [row for row in table.rows if (row.label == "SAFormer") == (row.section[-1] == "1")]
    with pytest.raises(SettingError, match="no runs of rows that differ in timesteps alone"):
        timesteps(replace(table, rows=rows))


def test_lines_of_one_label_are_told_apart(composed):
    """Networks of one label have the name of their section too, or are refused without one."""
    table = table_of(composed)
    rows = [replace(row, label="same", section=f"{row.label}, T = 9") for row in table.rows]
    fig = timesteps(replace(table, rows=rows))
    texts = [text.get_text() for text in fig.legends[0].get_texts()]
    assert texts == ["SAFormer: same", "no DWC: same"] and len(fig.axes[0].containers) == 2
    rows = [replace(row, label="same") for row in table.rows]
    with pytest.raises(SettingError, match="2 networks of table two are called 'digits: same'"):
        timesteps(replace(table, rows=rows))


def test_bars_equals_the_results(composed):
    """Dots are the means with their deviations and every seed, numbers the differences."""
    fig = bars(table_of(composed))
    assert len(fig.axes) == 2  # of the same rows: side by side
    for dataset in ("digits", "digits_events"):
        ax = panel(fig, dataset)
        texts = {text.get_position()[1]: text.get_text() for text in ax.texts}
        for top, steps in ((0, 1), (3, 4)):
            assert texts[top] == f"{dataset}, T = {steps}"
            zero = mean(measured("SAFormer", dataset, steps)[0])
            for y, label in ((top + 1, "SAFormer"), (top + 2, "no DWC")):
                accuracies, _ = measured(label, dataset, steps)
                x, at, (halves,) = drawn(ax, f"{dataset}, T = {steps}: {label}")
                assert (x, at) == ([pytest.approx(mean(accuracies))], [y])
                assert halves == [pytest.approx(stdev(accuracies))]
                (seeds,) = [
                    line.get_xdata()
                    for line in ax.lines
                    if len(line.get_xdata()) == 3 and round(line.get_ydata()[0]) == y
                ]
                assert sorted(seeds) == pytest.approx(sorted(accuracies))
                number = "ref." if label == "SAFormer" else f"{mean(accuracies) - zero:+.2f}"
                assert texts[y] == number
    assert fig.axes[0].get_ylim()[0] > fig.axes[0].get_ylim()[1]  # the first row is on top


def test_what_is_missing_is_said(composed):
    """Rows without runs are left out, seeds without runs counted, and single seeds have no bar."""

    def some(row: Row, seed: int) -> dict:
        if row.label == "no DWC" and row.config["timesteps"] == 1:
            return {}
        return numbers(row, seed) if seed == 0 or row.label == "SAFormer" else {}

    table = table_of(composed, some)
    fig = pareto(table)
    assert "over 1 to 3 seeds, without a bar for a single seed. 10 of 24 runs" in caption(fig)
    x, _, halves = drawn(panel(fig, "digits"), "digits, T = 4: no DWC")
    assert len(x) == 1 and not any(halves)
    assert len(panel(fig, "digits").containers) == 3
    ax = panel(bars(table), "digits")
    texts = {text.get_position()[1]: text.get_text() for text in ax.texts}
    assert texts[2] == "none" and texts[1] == ""  # and nothing to compare the other one with


def test_energy_that_was_not_counted(composed):
    """Rows without energy are not in the one figure, and the other shows their accuracy alone."""

    def some(row: Row, seed: int) -> dict:
        return numbers(row, seed) | ({} if row.label == "SAFormer" else {"energy": None})

    table = table_of(composed, some)
    assert "Not drawn: 4 rows whose energy was not counted." in caption(pareto(table))
    fig = timesteps(table)
    assert [len(ax.containers) for ax in fig.axes] == [2, 2, 1, 1]
    for row in table.rows:
        for run in row.runs.values():
            run.results["energy"].clear()
    assert len(timesteps(table).axes) == 2
    with pytest.raises(SettingError, match="no run of table two has counted energy"):
        pareto(table)


def test_conventions_are_not_mixed(composed):
    """Energies under two conventions are refused in one figure, with the fix."""
    table = table_of(composed)
    for run in table.rows[1].runs.values():
        run.config["energy"] = {**run.config["energy"], "convention": "strict"}
    with pytest.raises(SettingError, match=r"do not compare: exact .*strict .*energy\.convention="):
        pareto(table)


def test_ties_and_zero_deviations(composed):
    """Rows of equal energy and accuracy are all on the front, and panels keep a height."""
    table = table_of(composed, lambda row, seed: {"top1": 95.0, "energy": 1e-3})
    fig = pareto(table)
    ax = panel(fig, "digits")
    (line,) = [line for line in ax.lines if line.get_label() == "front"]
    assert line.get_xdata().tolist() == pytest.approx([1] * 4)
    assert np.ptp(ax.get_ylim()) == pytest.approx(1)
    assert drawn(ax, "digits, T = 1: SAFormer")[2] == [[0], [0]]


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
    grey = [line.get_data() for line in ax.lines if line.get_label() == "published"]
    assert [(x[0], y[0]) for x, y in grey] == [(7, 70), (12, 70), (0.97, 71)]
    texts = {text.get_text() for text in ax.texts}
    assert any(text.endswith("[1, 2]") for text in texts)
    assert any(text.endswith("[3]") for text in texts)
    assert "conventions of their sources" in caption(fig)
    assert "[2] two (README of a repository)." in caption(fig)
    assert "Published figures do not compare" in caption(fig)


def boxes(texts: list, fig: Figure) -> np.ndarray:
    found = [text.get_window_extent(style.renderer(fig)).extents for text in texts]
    return np.array(found).reshape(-1, 4)


def shared(one: np.ndarray, other: np.ndarray) -> float:
    return float(
        np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, 9e9).prod()
    )


@pytest.mark.parametrize("seed", range(5))
def test_labels_cover_nothing(seed):
    """Numbers of 36 points in three crowds cover no marker and no other number."""
    random = np.random.default_rng(seed)
    middles = np.repeat([[1.0, 94.0], [2.0, 95.5], [4.0, 96.5]], 12, axis=0)
    points = (middles + random.normal(0, [0.25, 0.6], (36, 2))).tolist()
    fig = style.figure(style.PAGE, 3)
    ax = fig.subplots()
    ax.plot(*zip(*points, strict=True), "o")
    ax.margins(0.12, 0.15)
    ax.set(xlim=ax.get_xlim(), ylim=ax.get_ylim())
    marks = [(ax.get_xlim()[1], 95.0)] * 4
    names = [str(1 + i % 12) for i in range(36)]
    labels = Labels(ax, points, names, ["black"] * 36, marks, ["1 [1]", "2 [1]", "3 [2]", "4 [3]"])
    fig.draw_without_rendering()
    labels.place()
    found = boxes([*labels.labels, *labels.sides], fig)
    for i, box in enumerate(found):
        assert all(shared(box, other) < 1 for other in found[:i])
    size = 2 * fig.dpi / 72  # of the circle inside a marker
    for x, y in ax.transData.transform(points):
        marker = np.array([x - size, y - size, x + size, y + size])
        assert all(shared(box, marker) < 1 for box in found)
    frame = np.array(ax.get_window_extent().extents)
    assert (found[:, :2] >= frame[:2] - 1).all() and (found[:, 2:] <= frame[2:] + 1).all()


def panel_with(points: list) -> tuple[Figure, Axes]:
    """A panel for a column, with markers and fixed limits."""
    fig = style.figure(style.COLUMN, 2)
    ax = fig.subplots()
    ax.plot(*zip(*points, strict=True), "o")
    ax.set(xlim=(0, 1), ylim=(0, 1))
    return fig, ax


@pytest.mark.parametrize(
    ("text", "points", "fits"),
    [
        ("1", [(0.15 * i, 0.5) for i in range(1, 6)], True),
        ("wide" * 20, [(0.15 * i, 0.5) for i in range(1, 6)], False),  # than the panel
        ("12", [(0.5, 0.5)] * 12, False),  # the last are far away from where they belong
    ],
)
def test_labels_say_when_they_do_not_fit(text, points, fits):
    """Labels fit if all of them are in the panel, clear of others and beside their markers."""
    fig, ax = panel_with(points)
    labels = Labels(ax, points, [text] * len(points), ["black"] * len(points))
    fig.draw_without_rendering()
    assert labels.place() is fits


def test_labels_make_way_for_those_at_the_edge():
    """A label does not lie on one of an accuracy without an energy, whose place is given."""
    fig, ax = panel_with([(0.85, 0.4)])
    labels = Labels(ax, [(0.85, 0.4)], ["12"], ["black"], [(0.97, 0.45)], ["8 [3]"])
    fig.draw_without_rendering()
    labels.place()
    one, other = boxes([*labels.labels, *labels.sides], fig)
    assert shared(one, other) == 0


@pytest.mark.parametrize("draw", [pareto, timesteps, bars])
def test_it_can_be_printed(composed, draw):
    """Text is 8 points at least and inside the page; files have the size and whole fonts."""
    fig = draw(table_of(composed))
    png, pdf = style.save(fig, Path("made"), "figure")
    width, height = fig.get_size_inches()
    assert width in (style.COLUMN, style.PAGE)
    with Image.open(png) as image:
        assert image.size == (int(width * style.DPI), int(height * style.DPI))
    assert b"/FontFile2" in pdf.read_bytes() and b"/Type3" not in pdf.read_bytes()
    texts = [text for text in fig.findobj(Text) if text.get_visible() and text.get_text()]
    assert min(text.get_fontsize() for text in texts) >= 8
    fig.draw_without_rendering()  # at its own resolution again
    page = fig.get_tightbbox(style.renderer(fig)).extents
    assert (page >= 0).all() and (page <= [width, height, width, height]).all()
    found = boxes([text for ax in fig.axes for text in ax.texts if text.get_text()], fig)
    assert (found >= 0).all() and (found[:, 2:] <= fig.dpi * np.array([width, height])).all()


def test_the_same_runs_give_the_same_bytes(composed):
    """A figure that is made again is the same file, so that version control sees no change."""
    table = table_of(composed)
    small = replace(table, rows=table.rows[:2])
    made = [
        [file.read_bytes() for file in style.save(bars(small), Path(folder), "figure")]
        for folder in ("one", "two")
    ]
    assert made[0] == made[1]


def test_nothing_is_changed_for_others():
    """Figures come without pyplot and torch, and settings of matplotlib are as they were."""
    code = (
        "import matplotlib, sys; rc = matplotlib.rcParams\n"
        "before = {name: rc[name] for name in rc if name != 'backend'}\n"  # asked for, it is chosen
        "from saformer import figure_style as style\nfrom saformer.commands import plot\n"
        "with style.printed(): assert rc['pdf.fonttype'] == 42\n"
        "assert before == {name: rc[name] for name in before}\n"
        "sys.exit('torch' in sys.modules or 'matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
