"""README's commands are run, and its tables are held against the files they describe."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest
from pages import numbers

from saformer.config.files import conf_dir

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
RESULTS = ROOT / "benchmarks" / "results" / "amd-epyc-2-cores"
RUNS = RESULTS.with_name("amd-epyc-avx512-2-cores")
TRAINED = ("digits", "digits_events")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


COMMANDS = [
    line.partition("#")[0].strip()
    for block in blocks("bash")
    for line in block.splitlines()
    if line.startswith(("python train.py", "python eval.py", "saformer energy"))
]


def test_the_two_commands_are_the_ones_make_knows():
    """Quick start begins with `make train` and `make test`, and they start what README says."""
    first = [line.partition("#")[0].strip() for line in blocks("bash")[0].splitlines()]
    assert first == ["make train", "make test"]
    for target, started in (("train", "python train.py"), ("test", "python -m pytest")):
        done = subprocess.run(
            ["make", "--dry-run", "--directory", ROOT, target], capture_output=True, text=True
        )
        assert started in done.stdout, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_composes(cli, command):
    """Each command of README that Hydra reads gives a configuration that passes the checks."""
    script, *words = shlex.split(command.removeprefix("python ").removeprefix("saformer "))
    flags = [word for word in words if word.startswith("-") and word != "-m"]
    words = [word.split(",")[0] for word in words if not word.startswith("-")]
    code, out, err = cli(script.removesuffix(".py"), *words, *(flags or ["--cfg", "job"]))
    assert (code, err) == (0, "")
    assert out


@pytest.mark.parametrize("block", blocks("console"))
def test_the_shown_answer_is_the_answer(block):
    """What README shows below a command is what the command prints."""
    command, _, answer = block.partition("\n")
    words = shlex.split(command.removeprefix("$ python "))
    done = subprocess.run(
        [sys.executable, ROOT / words[0], *words[1:]], capture_output=True, text=True
    )
    assert done.stdout + done.stderr == answer


def test_every_option_is_named():
    """The table of settings names every group of conf/ and every option of every group."""
    table = README.partition("## Settings")[2].partition("\n## ")[0]
    rows = {
        group: row.replace("*", "")
        for row in table.splitlines()
        for group in re.findall(r"`(\w+)`", row.partition("|")[2].partition("|")[0])
    }
    for path in sorted(conf_dir().glob("*/*.yaml")):
        group, option = path.parent.name, path.stem
        if group in ("hydra", "local", "paper"):  # paper: tables, not settings
            continue
        row = rows[group]
        for family, variants in re.findall(r"(\w+_)\{([^}]*)\}", row):
            row += "".join(f" {family}{variant.strip()}" for variant in variants.split(","))
        named = re.search(rf"\b{option}\b", row) or (option.startswith("sasa_") and "sasa_" in row)
        assert named, f"README does not name {group}={option}"


def test_links_lead_somewhere():
    """Every relative link of README and docs/ points at a file of the repository."""
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            if not target.startswith(("http", "mailto")):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_results_are_the_measured_ones():
    """The numbers in README stand in benchmarks/results/, where their commands put them."""
    shown = " ".join(README.partition("## Results")[2].partition("\n## ")[0].split())

    def measured(name: str) -> dict:
        return json.loads((RESULTS / f"{name}.json").read_text())

    startup, neuron = measured("startup"), measured("lif")
    digits, events = (json.loads((RUNS / f"{name}.json").read_text()) for name in TRAINED)
    default_malloc = measured("lif_default_malloc")
    accuracies = [[run["test_top1"] for run in runs["runs"]] for runs in (digits, events)]
    for number in (
        *(f"{100 * of(runs):.1f}" for runs in accuracies for of in (median, min, max)),
        *(f"{runs['median']['wall_s']:.0f}" for runs in (digits, events)),
        f"{digits['median']['peak_MiB'] / 1024:.2f}",
        f"{startup['median_s']['train.py --cfg job']:.2f}",
        *(
            f"{of['speedup'][x]:.1f}"
            for of in (neuron, default_malloc)
            for x in ("torch", "compile")
        ),
        f"{neuron['of_floor']['compile']:.2f}",
    ):
        assert number in numbers(shown), number
    assert digits["machine"]["cpu"] in shown


@pytest.mark.slow
def test_the_default_training_learns(default_run):
    """`python train.py`, as `make train` starts it, learns the digits of hands it never saw."""
    assert re.search(r"test acc \d\d\.\d\d %", (default_run / "printed").read_text())
    results = json.loads((default_run / "results.json").read_text())
    assert results["test"]["test/top1"] >= 0.93
