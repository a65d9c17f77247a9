"""Names that leave their folder, or have lines of their own, are refused before anything is made;
names that others wrote into files are shown and not obeyed.
"""

import csv
import json
from collections import OrderedDict
from io import StringIO
from pathlib import Path

import matplotlib
import pytest
import torch
import yaml
from omegaconf import OmegaConf
from rich.console import Console
from torch import nn

from saformer import figure_style as style
from saformer.commands import table as commands
from saformer.energy import report
from saformer.energy.counter import Counter
from saformer.energy.settings import EnergyConfig
from saformer.errors import SettingError
from saformer.models.settings import ModelConfig
from saformer.results import render
from saformer.results.settings import read_table
from saformer.results.tables import fill
from saformer.runs.cluster import run_id
from saformer.runs.logger import build_logger

NO_NAME = "must be one printable name and no path: "
LINES = "x\n#SBATCH --wrap=id"
LAYER = r"=$\frac{$|[red]"
MODEL = "[red]$\\input{/etc/passwd}$|<b>\x1b[2J\u202e"
SMALL = ("trainer.accelerator=cpu", "logger=none", "epochs=1", "scheduler.warmup_epochs=0")
TABLE = {"title": "Digits", "seeds": [0], "columns": ["test_top1", "energy"]}
QUICK = (*SMALL, "callbacks=none", "energy=off", "dataset.train_subset=100", "model.dim=16")


def everything(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize(
    ("words", "setting"),
    [
        (["name=../../x"], "name"),
        (["name=/tmp/saformer-x"], "name"),
        ([f"name='{LINES}'"], "name"),
        (["name='a\x1b[2J'"], "name"),
        (["model.name=../../../etc"], "name"),
        (["hydra.job.name=../../x"], "hydra.job.name"),
        (["name=../../x", "hydra.run.dir=mine"], "name"),
        (["-m", "name=../../x", "seed=1,2"], "name"),
        (["-m", "name=it", "seed=1,2", f"hydra.sweep.dir='{LINES}'"], "hydra.sweep.dir"),
        (["-m", "seed=1,2", f"+hydra.launcher.partition='{LINES}'"], "hydra.launcher.partition"),
    ],
)
def test_a_name_that_leads_elsewhere_makes_nothing(cli, tmp_path, monkeypatch, words, setting):
    """It is answered in one printable line, and no folder is made anywhere."""
    here = tmp_path / "a" / "b" / "c"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    before = everything(tmp_path)
    code, out, err = cli("train", *QUICK, *words)
    assert (code, out) == (2, "")
    rule = NO_NAME if setting.endswith("name") else "must be one line of printable characters"
    assert err.startswith(f"error: {setting} {rule}") and err[:-1].isprintable()
    assert everything(tmp_path) == before and not Path("/tmp/saformer-x").exists()


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a\nb", "{epoch:/>9}", "{epoch:c}", ".x"])
def test_a_checkpoint_stays_in_its_folder(cli, tmp_path, name):
    """The name of its file is no path, whatever a metric in it is written as."""
    before = everything(tmp_path)
    words = (
        *SMALL,
        "energy=off",
        "dataset.train_subset=100",
        f"callbacks.checkpoint.filename='{name}'",
    )
    code, _out, err = cli("train", *words)
    assert code == 2 and err.startswith(f"error: callbacks.checkpoint.filename {NO_NAME}")
    assert everything(tmp_path) - before <= {tmp_path / "outputs"}


def test_a_model_has_a_name():
    """So it is for the library, and for what is named on the command line alone."""
    for name in ("../x", "a\nb", "", "\u202eb", MODEL):
        with pytest.raises(SettingError, match=r"^model\.name must be one printable name"):
            ModelConfig(name=name, dim=16, depth=1, num_heads=2)


@pytest.mark.parametrize(
    "environ",
    [
        {"TORCHELASTIC_RUN_ID": "../../x"},
        {"SLURM_JOB_ID": "../1", "ENVIRONMENT": "BATCH"},
        {"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0\n", "SLURM_STEP_NUM_TASKS": "2"},
    ],
)
def test_the_environment_names_no_other_folder(cli, tmp_path, monkeypatch, environ):
    """A run's id that comes from outside is a name too."""
    for variable, value in environ.items():
        monkeypatch.setenv(variable, value)
    code, _out, err = cli("train", *QUICK)
    assert code == 2 and NO_NAME in err and err.startswith(("error: SLURM", "error: TORCH"))
    assert not everything(tmp_path)
    run_id.cache_clear()


@pytest.mark.parametrize("setting", ["project", "group", "name", "id"])
def test_names_for_wandb_are_names(tmp_path, setting):
    """They become folders, and addresses of pages."""
    with pytest.raises(SettingError, match=rf"^logger\.{setting} must be one printable name"):
        options = {"kind": "wandb", setting: "../../x"}
        build_logger(options, tmp_path, "run", "group", [], {})


@pytest.mark.parametrize("part", ["title", "label", "section"])
def test_a_table_has_no_lines_of_its_own(cli, part):
    """A label or title with a line break is refused: below the table it would be a command."""
    table = {**TABLE, "rows": [{"label": "it"}]}
    if part == "title":
        table["title"] = "it\ntouch pwned"
    elif part == "label":
        table["rows"] = [{"label": "it\ntouch pwned"}]
    else:
        table = {**TABLE, "sections": [{"label": "a\nb", "rows": [{"label": "it"}]}]}
    Path("mine.yaml").write_text(yaml.safe_dump(table))
    code, out, err = cli("table", "mine.yaml", *SMALL)
    assert (code, out) == (2, "") and "must be one line of printable characters" in err
    assert err[:-1].isprintable()


def test_a_table_shows_its_labels_and_obeys_none(cli):
    """In the terminal, the page, the paper and the spreadsheet a hostile label is its text."""
    label = r"=cmd|' /C calc'!A0 $\input{x}$ [red]a[/red] <script> ; touch pwned"
    words = [*SMALL, "data_dir='a\nb'"]
    Path("mine.yaml").write_text(yaml.safe_dump({**TABLE, "rows": [{"label": label}]}))
    code, out, err = cli("table", "mine.yaml", *words, "--out", "made")
    assert (code, err) == (0, "")
    assert "[red]a[/red]" in out and "= cmd" not in out
    commands_below = out.partition("or these commands do:\n")[2].splitlines()
    assert commands_below[0].startswith("# '=cmd") and "\\012b" in commands_below[1]
    assert commands_below[2:3] in ([], [""])
    page = Path("made/mine.md").read_text()
    assert "<script>" not in page.partition("## Missing")[0]
    (row,) = [line for line in page.splitlines() if line.startswith("| =cmd\\|")]
    assert row.replace("\\|", "").count("|") == page.splitlines()[2].count("|")
    tex = Path("made/mine.tex").read_text()
    text = "\n".join(line for line in tex.splitlines() if not line.startswith("%"))
    assert r"\input" not in text and r"\textbackslash{}input\{x\}\$" in text
    (line,) = csv.DictReader(Path("made/mine.csv").open(newline=""))
    assert line["row"] == f"'{label}"


def test_a_strangers_runs_are_shown_and_not_obeyed(cli, tmp_path):
    """What their run.json holds, and how their folder is called, moves no cursor."""
    folder = tmp_path / "outputs" / "x\x1b[2J\ntouch pwned" / "0"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"starts": 1}))
    Path("mine.yaml").write_text(yaml.safe_dump({**TABLE, "rows": [{"label": "it"}]}))
    code, out, err = cli("table", "mine.yaml", *SMALL, "--out", "made")
    assert (code, err) == (0, "")
    assert "\x1b" not in out and "\ntouch" not in out and "x\\x1b[2J\\ntouch pwned" in out
    assert "\x1b" not in Path("made/mine.md").read_text()


def test_a_report_of_energy_shows_the_name_of_its_model(tmp_path, backbone):
    """table.tex, report.md and layers.csv have a hostile name as its text."""
    network = backbone("model=saformer_tiny", "model.dim=16", "timesteps=2")
    network = nn.Sequential(OrderedDict({LAYER: network}))  # as a class of one's own may call it
    counter = Counter(network)
    with torch.no_grad(), counter.counting(1):
        network(torch.rand(1, 1, 8, 8))
    table = counter.table()
    facts = {"model": MODEL, "dataset": LINES, "split": "test"}
    report.write(table, EnergyConfig(), tmp_path / "energy", facts)
    *comments, row = (tmp_path / "energy/table.tex").read_text().splitlines()
    assert all(line.startswith("% ") and line.isprintable() for line in comments)
    assert row.startswith(r"{}[red]\$\textbackslash{}input\{/etc/passwd\}\$\textbar{}\textless{}b")
    assert row.isprintable() and r"\input" not in row
    layers = list(csv.DictReader((tmp_path / "energy/layers.csv").open(newline="")))
    assert layers and all(line["layer"].startswith(f"'{LAYER}.") for line in layers)
    page = (tmp_path / "energy/report.md").read_text()
    (head,) = [line for line in page.splitlines() if line.startswith("| layer |")]
    rows = [line for line in page.splitlines() if line.startswith(r"| =\$")]
    assert rows and all(row.replace(r"\|", "").count("|") == head.count("|") for row in rows)
    console = Console(file=StringIO(), width=200)
    console.print(*report.terminal(table, EnergyConfig()), sep="\n", markup=False)
    assert f"{LAYER}." in console.file.getvalue()
    assert "<b>" not in page and all(line.isprintable() for line in page.splitlines())
    assert "#SBATCH" in page and "\n#SBATCH" not in page


def test_a_figure_draws_a_dollar_as_it_is(tmp_path):
    """A name is no formula: one that is none would stop the figure, another be set as one."""
    Path("t.yaml").write_text(yaml.safe_dump({**TABLE, "rows": [{"label": r"$\frac{$"}]}))
    with style.printed():
        assert matplotlib.rcParams["text.parse_math"] is False
        fig = style.figure(style.COLUMN, 1)
        fig.subplots().set_title(r"$\frac{$ and $\input{x}$")
        style.foot(fig, [], r"of $\nothing$")
        assert style.save(fig, tmp_path, "it")
    config = read_table(Path("t.yaml"))
    rows = commands.compose_rows("t", config, list(SMALL))
    assert r"\$\textbackslash{}frac" in render.latex(fill("t", config, rows, []))


def test_a_run_under_a_usual_name_is_where_it_was(compose):
    """The folder of a run is outputs/<name>/<run id>, as ever."""
    assert compose("name='T = 4, ours'").name == "T = 4, ours"
    assert OmegaConf.create({"it": "${run_id:}"}).it == run_id()
