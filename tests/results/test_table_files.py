"""The files that describe a table, published figures beside its rows, and what is refused."""

import json
from pathlib import Path

import pytest
import yaml
from small_table import SMALL, TABLE

from saformer import escape
from saformer.errors import SettingError
from saformer.results import render
from saformer.results import rows as table_rows
from saformer.results.settings import read_table, table_names, table_path
from saformer.results.tables import fill


def test_published_figures_stand_beside_ours():
    """A figure is cited with its source and provenance; empty ones say where to fill them in."""
    table = {**TABLE, "rows": [{"label": "mine", "published": "Spikformer-8-384"}]}
    rival = "dataset.name=imagenet"
    config = read_settings_of(table)
    row = table_rows.compose_rows("t", config, [*SMALL, "timesteps=4", rival])[0]
    drawn = render.grid(fill("t", config, [row], []))
    assert drawn.sections[0][1][0][-2:] == ["70.24 [1]", "7.73 [1], 12.4 [2], 5.97 [3]"]
    assert drawn.notes[0] == "[1] Spikformer, arXiv 2209.15425 (recalled, to be confirmed)"
    assert any("best epoch on the test set itself" in note for note in drawn.notes)

    config = read_settings_of({**TABLE, "rows": [{"label": "mine", "published": "SAFormer"}]})
    row = table_rows.compose_rows("t", config, [*SMALL, "dataset.name=cifar10"])[0]
    drawn = render.grid(fill("t", config, [row], []))
    assert drawn.sections[0][1][0][-2:] == [render.NONE] * 2
    assert any("SAFormer are not known here: if you hold the paper" in note for note in drawn.notes)


def read_settings_of(table: dict):
    Path("t.yaml").write_text(yaml.safe_dump(table))
    return read_table(table_path("t.yaml"))


def test_no_figure_is_called_the_papers():
    """SAFormer's published row is empty for every dataset of its abstract."""
    from saformer.results.published import Provenance, published

    known = published()
    figures = [(f, s) for s in known.sources for f in s.figures]
    ours = [figure for figure, _ in figures if figure.method.startswith("SAFormer")]
    datasets = {"cifar10", "cifar100", "tiny_imagenet", "cifar10_dvs", "dvs128_gesture"}
    assert {figure.dataset for figure in ours} == datasets and all(f.empty for f in ours)
    assert not any(s.provenance is Provenance.paper for f, s in figures if not f.empty)
    keys = [(f.method, f.dataset, f.timesteps, s.cite()) for f, s in figures]
    assert len(set(keys)) == len(keys)
    assert all(f.top1 is None or 50 < f.top1 < 100 for f, _ in figures)


def test_latex_is_escaped():
    """No character of a label or title means anything to LaTeX."""
    assert escape.latex(r"a_b & 5 % $x$ #1 {y} ~ ^ \ < > | ± " + render.NONE) == (
        r"a\_b \& 5 \% \$x\$ \#1 \{y\} \textasciitilde{} \textasciicircum{} \textbackslash{} "
        r"\textless{} \textgreater{} \textbar{} $\pm$ --"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mian"], "there is no table 'mian'. Did you mean 'main'? Tables: ablation, digits, "),
        (["mine.yaml"], "there is no file mine.yaml that describes a table"),
        ([], "saformer-table needs a table. Type saformer-table NAME: ablation, "),
        (["main", "--rnu"], "unrecognized arguments: --rnu. Help: saformer-table --help"),
        (["digits", "seed=3"], "table digits sets the seeds itself, [0, 1, 2]: drop seed=..."),
        (
            ["main", "timestep=2"],
            "table main, row 'SAFormer-2-256': there is no setting 'timestep'.",
        ),
        (["main", "--outputs", "nowhere"], "--outputs nowhere is not a folder"),
    ],
)
def test_mistakes_are_answered_in_one_line(cli, words, said):
    """What cannot work is said in one line, with exit code 2."""
    code, out, err = cli("table", *words)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {said}") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"title": "???"}, "t.yaml: title: is missing"),
        ({"colums": []}, "t.yaml: colums: Key 'colums' not in 'TableConfig'"),
        ({"columns": ["test_topp1"]}, "there is no column 'test_topp1'. Did you mean 'test_top1'?"),
        ({"seeds": [1, 1]}, "t.yaml: seeds must be different numbers, not [1, 1]"),
        ({"rows": []}, "t.yaml: rows must name at least one experiment, not []"),
        (
            {"rows": [{"label": "x", "published": "SAformer"}]},
            "published.yaml has no method 'SAform",
        ),
        (
            {"rows": [{"label": "x", "overrides": ["ablation=no_dcw"]}]},
            "row 'x': ablation has no op",
        ),
    ],
    ids=["title", "key", "column", "seeds", "rows", "method", "override"],
)
def test_a_table_file_that_is_wrong(cli, change, said):
    """A mistake in a table's file is answered in one line that names it."""
    Path("t.yaml").write_text(yaml.safe_dump({**TABLE, **change}))
    code, _, err = cli("table", "t.yaml")
    assert code == 2 and said in err and err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", table_names())
def test_every_shipped_table_composes(name):
    """Each row of each table in conf/paper is a training that passes the checks, and none twice."""
    config = read_table(table_path(name))
    rows = table_rows.compose_rows(name, config, [])
    assert all(row.missing == config.seeds for row in fill(name, config, rows, []).rows)
    assert len({json.dumps({**row.config, "name": ""}) for row in rows}) == len(rows)


def test_runs_may_go_to_a_new_folder(tmp_path):
    """With --run the folder of --outputs need not be there; a file is refused."""
    assert table_rows.require_folders("new", "", makes_runs=True) == Path("new")
    Path("file").touch()
    with pytest.raises(SettingError, match="--outputs file is not a folder"):
        table_rows.require_folders("file", "", makes_runs=True)
