"""What the figures show is what run folders say; read back from what was drawn."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pytest
from matplotlib.text import Text
from mostly_slow import mostly_slow
from PIL import Image
from plot_tables import boxes, caption, drawn, measured, numbers, panel, table_of

from saformer import figure_style as style
from saformer.errors import SettingError
from saformer.results.plots.bars import bars
from saformer.results.plots.pareto import pareto
from saformer.results.plots.timesteps import timesteps
from saformer.results.tables import Row


@pytest.fixture(autouse=True)
def for_print() -> Iterator[None]:
    with style.printed():
        yield


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
    with pytest.raises(
        SettingError, match=r"are not comparable: exact .*strict .*energy\.convention="
    ):
        pareto(table)


@pytest.mark.parametrize("draw", mostly_slow([pareto, timesteps, bars], 3))
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
        "from saformer import figure_style as style\nfrom saformer.results.plots import bars\n"
        "with style.printed(): assert rc['pdf.fonttype'] == 42\n"
        "assert before == {name: rc[name] for name in before}\n"
        "sys.exit('torch' in sys.modules or 'matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
