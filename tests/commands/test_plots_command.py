"""`saformer-plot` as it is typed: files, what is missing, curves, and mistakes in one line."""

import json
import shutil
from pathlib import Path
from statistics import mean

import pytest
import yaml
from plot_runs import fabricate, leave_run

from saformer import figure_style as style
from saformer.commands.plot import KINDS
from saformer.results import rows as table_rows
from saformer.results.plots.curves import curves, read
from saformer.results.settings import read_table

TABLE = {
    "title": "Over T",
    "seeds": [0, 1],
    "columns": ["test_top1"],
    "rows": [{"label": f"T = {steps}", "overrides": [f"timesteps={steps}"]} for steps in (1, 2)],
}
PAGE = (Path(__file__).parents[2] / "docs" / "figures.md").read_text()


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with mine.yaml and its runs in outputs/, which also holds their rows."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "mine.yaml").write_text(yaml.safe_dump(TABLE))
    rows = table_rows.compose_rows("mine", read_table(folder / "mine.yaml"), [])
    fabricate(
        rows,
        folder / "outputs",
        lambda row, seed: {"top1": 90.0 + row.config["timesteps"] + seed, "energy": 2e-3},
    )
    return folder


@pytest.fixture
def runs(made, tmp_path) -> Path:
    """A copy of these runs in the test's own folder."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "outputs"


@pytest.mark.parametrize("what", ["pareto", "bars"])
def test_figures_of_a_table(cli, runs, what):
    """A figure comes as PNG and PDF, into a new folder or the one that was named."""
    if what == "bars":
        shutil.rmtree(runs / "row0" / "1")
        code, out, err = cli("plot", what, "mine.yaml", "--out", "made")
        missing, files = out.splitlines()
        assert missing == (
            "1 of 4 runs are missing: saformer-table mine.yaml says which, and how to make them"
        )
        assert files == "bars-mine.png, bars-mine.pdf in made"
    else:
        code, out, err = cli("plot", what, "mine.yaml", "epochs=36", "--outputs", "outputs")
        assert out.startswith(f"{what}-mine.png, {what}-mine.pdf in outputs/plots/{what}-mine-")
        assert out.count("\n") == 1
    assert (code, err) == (0, "")
    folder = Path(out.split()[-1])
    assert sorted(path.suffix for path in folder.iterdir()) == [".pdf", ".png"]
    assert (folder / f"{what}-mine.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / f"{what}-mine.pdf").read_bytes().startswith(b"%PDF")


def lines_of(ax) -> dict[str, tuple[list, list]]:
    return {line.get_label(): tuple(map(list, line.get_data())) for line in ax.lines}


def test_curves_equal_the_metrics(runs):
    """Each seed is a line as in metrics.jsonl, in one colour with their mean; each T another."""
    (runs / "row1" / "1" / "metrics.jsonl").write_text("".join(metrics(runs / "row1" / "1", 2)))
    found, remarks = read([runs])
    assert (len(found), remarks) == (4, [])
    with style.printed():
        fig = curves(found)
    panels = {ax.get_ylabel().partition(",")[0]: ax for ax in fig.axes}
    assert list(panels) == [
        *("training loss", "validation loss", "validation accuracy (%)"),
        *("energy per image (µJ)", "firing rate"),
    ]
    for name, key, factor in (
        ("training loss", "train/loss", 1),
        ("validation accuracy (%)", "val/top1", 100),
        ("energy per image (µJ)", "energy/total_mJ", 1000),
    ):
        shown = lines_of(panels[name])
        for row, steps in (("row0", 1), ("row1", 2)):
            each = []
            for seed in (0, 1):
                epochs = [json.loads(line) for line in metrics(runs / row / str(seed))]
                each.append([factor * epoch[key] for epoch in epochs])
                assert shown[f"timesteps={steps}, seed {seed}"] == (
                    [epoch["epoch"] for epoch in epochs],
                    each[-1],
                )
            # As far as both have come: 2 epochs, where one was cut off.
            together = [pytest.approx(mean(pair)) for pair in zip(*each, strict=False)]
            assert shown[f"timesteps={steps}"][1] == together
            assert len(together) == (4 if steps == 1 else 2)
        colours = {line.get_label(): line.get_color() for line in panels[name].lines}
        assert len(set(colours.values())) == 2
        assert colours["timesteps=1, seed 0"] == colours["timesteps=1, seed 1"]
    assert "Training on digits: 4 runs." in fig.texts[-1].get_text()


def metrics(run: Path, epochs: int = 9) -> list[str]:
    return (run / "metrics.jsonl").read_text().splitlines(keepends=True)[:epochs]


def test_curves_of_one_run_and_of_what_it_has(cli, runs):
    """A run without energy has no such panel; a half written line does not count."""
    config = json.loads((runs / "row0/0/run.json").read_text())["starts"][0]["config"]
    leave_run(runs / "plain", config, 7, {"top1": 90.0})
    with (runs / "plain" / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 5, "train/lo')
    found, _ = read([runs / "plain"])
    with style.printed():
        fig = curves(found)
    assert len(fig.axes) == 3
    assert lines_of(fig.axes[0])["saformer_tiny_digits"][0] == [1, 2, 3, 4]
    code, out, err = cli("plot", "curves", "outputs/plain", "outputs/row1")
    assert (code, err) == (0, "") and out.startswith("curves.png, curves.pdf in outputs/plots/curv")


def test_curves_under_two_conventions(runs):
    """Energies of two conventions are in no panel, and their names are said."""
    path = runs / "row0" / "0" / "run.json"
    record = json.loads(path.read_text())
    record["starts"][0]["config"]["energy"]["convention"] = "strict"
    path.write_text(json.dumps(record))
    with style.printed():
        fig = curves(read([runs])[0])
    assert len(fig.axes) == 4
    assert "Energies, counted under exact and strict, are left out." in " ".join(
        fig.texts[-1].get_text().split()
    )


@pytest.mark.parametrize("kinds", [12, 13])
def test_curves_tell_twelve_kinds_apart(cli, runs, kinds):
    """As many kinds of runs as there are looks have looks of their own; more are refused."""
    record = json.loads((runs / "row0" / "0" / "run.json").read_text())
    for number in range(kinds):
        config = json.loads(json.dumps(record["starts"][0]["config"]))
        config["optimizer"]["lr"] = 1e-4 * (number + 1)
        leave_run(Path("many") / str(number), config, 0, {"top1": 90.0})
    if kinds == 13:
        code, _, err = cli("plot", "curves", "many")
        assert code == 2 and err.count("\n") == 1
        assert err.startswith("error: 13 kinds of runs, not counting seeds, and a figure tells 12")
        return
    with style.printed():
        fig = curves(read([Path("many")])[0])
    looks = {(line.get_color(), line.get_marker()) for line in fig.axes[0].lines}
    assert len(looks) == 12 and len({marker for _, marker in looks}) == 12
    assert len(fig.legends[0].get_texts()) == 12


def test_every_figure_is_described():
    """docs/figures.md has a command for each kind, and names no other."""
    typed = {line.split()[1] for line in PAGE.splitlines() if line.startswith("saformer-plot ")}
    assert typed == set(KINDS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            [],
            "saformer-plot needs a figure. Type saformer-plot WHAT: pareto, timesteps, bars, "
            "curves, spikes",
        ),
        (["paretto", "digits"], "there is no figure 'paretto'. Did you mean 'pareto'? Figures: "),
        (["pareto"], "saformer-plot pareto needs one TABLE, not none"),
        (["bars", "digits", "main"], "saformer-plot bars needs one TABLE, not digits, main"),
        (["bars", "digitss"], "there is no table 'digitss'. Did you mean 'digits'? Tables: "),
        (["bars", "mine.yml"], "there is no file mine.yml that describes a table"),
        (["bars", "mine.yaml", "timestep=1"], "table mine, row 'T = 1': there is no setting 'time"),
        (["bars", "mine.yaml", "--outputs", "nowhere"], "--outputs nowhere is not a folder"),
        (["bars", "mine.yaml", "--out", "mine.yaml"], "--out mine.yaml is a file: name a folder"),
        (["bars", "mine.yaml", "--outs", "x"], "unrecognized arguments: --outs x. Help: saformer-"),
        (
            ["pareto", "mine.yaml", "--outputs", "empty"],
            "empty holds no run of table mine: saformer-table mine prints the commands that make",
        ),
        (["curves"], "saformer-plot curves needs a RUN: a run folder, or one above several"),
        (
            ["curves", "outputs", "epochs=3"],
            "saformer-plot curves takes no settings: drop epochs=3",
        ),
        (["curves", "nowhere"], "there is no folder nowhere: name folders of runs, or one above"),
        (["curves", "empty"], "empty holds no run, that is, no folder with a run.json"),
        (["curves", "bare"], "bare has no curves: bare/0/metrics.jsonl has no epoch"),
        (
            ["curves", "torn"],
            "torn holds no run, that is, no folder with a run.json: torn/run.json",
        ),
        (["spikes"], "saformer-plot spikes needs one RUN or CHECKPOINT, not none"),
        (["spikes", "bare/0", "--images", "0"], "--images must be positive, not 0"),
        (["spikes", "bare/0", "--images", "x"], "argument --images: invalid int value: 'x'. Help"),
    ],
)
def test_mistakes_are_answered_in_one_line(cli, runs, words, said):
    """What cannot work is said in one line, with exit code 2, and makes nothing."""
    Path("empty").mkdir()
    shutil.copytree(runs / "row0" / "0", "bare/0")
    Path("bare/0/metrics.jsonl").unlink()
    Path("torn").mkdir()
    Path("torn/run.json").write_text("{")
    code, out, err = cli("plot", *words)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {said}") and err.count("\n") == 1
    assert not (runs / "plots").exists()


def test_what_is_wrong_beside_good_runs_is_said(cli, runs):
    """Runs that have no curves yet are counted, and those that cannot be read are named."""
    (runs / "row0" / "0" / "metrics.jsonl").unlink()
    (runs / "row1" / "0" / "run.json").write_text("{")
    code, out, err = cli("plot", "curves", "outputs", "--out", "made")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "outputs/row1/0/run.json cannot be read (JSONDecodeError)",
        "1 runs in outputs have no metrics yet",
        "curves.png, curves.pdf in made",
    ]
    assert sorted(path.name for path in Path("made").iterdir()) == ["curves.pdf", "curves.png"]
