"""Energy from the command line: while training, as a report on a checkpoint, and what is wrong."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import short_run
import torch

import saformer
from saformer.commands.spikes import draw
from saformer.models.settings import MemoryConfig, Recompute, SpikeStore

SHORT = (*short_run.SHORT, "hydra.run.dir=run")


@pytest.fixture(scope="module")
def uncounted(shared_run) -> Path:
    """A run that counted nothing."""
    run = shared_run(*SHORT, "energy=off") / "run"
    assert not (run / "energy").exists()
    return run


@pytest.fixture
def checkpoint(uncounted) -> str:
    """A checkpoint of a copy of that run, in the folder `run`."""
    shutil.copytree(uncounted, "run")
    return "run/checkpoints/best.ckpt"


TABLES = {"report.md", "table.tex", "layers.csv", "energy.json"}
FIGURES = {"energy_by_layer.png", "energy_by_stage.png", "firing_rates.png", "crossover.png"}


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def reports() -> list[Path]:
    return sorted(Path("run").glob("energy-*"))


def test_a_run_logs_energy_and_leaves_the_report(cli):
    """By default every epoch's line has the energy, and the test leaves tables and figures."""
    code, out, err = cli("train", *SHORT, "plots=true")
    assert (code, err) == (0, "")
    assert out.count(" mJ  ") == 2
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert all(line["energy/coverage"] == 1 for line in lines)
    results = json.loads(Path("run/results.json").read_text())
    assert results["energy"]["energy/n_samples"] == 360
    assert files(Path("run/energy")) == {"rates.jsonl", *TABLES, *FIGURES}


def test_a_report_has_the_figures_it_shows(cli, checkpoint):
    """report.md shows each picture of its folder, and with plots=false there is none.

    What the checkpoint's training drew does not matter.
    """
    pages = {}
    for plots in ("true", "false"):
        words = (f"ckpt_path={checkpoint}", f"plots={plots}")
        before = set(reports())
        assert cli("energy", *words)[::2] == (0, "")
        (folder,) = set(reports()) - before
        assert files(folder) == {*TABLES, *(FIGURES if plots == "true" else ())}
        pages[plots] = (folder / "report.md").read_text()
    assert {f"{name}.png" for name in re.findall(r"!\[(.*)\]", pages["true"])} == FIGURES
    assert pages["true"].startswith(pages["false"]) and "](" not in pages["false"]


def test_a_checkpoint_trained_without_energy_is_reported(cli, checkpoint):
    """`saformer-energy` counts the whole test set, prints tables, and writes beside the run."""
    code, out, err = cli("energy", f"ckpt_path={checkpoint}")
    assert (code, err) == (0, "")
    for word in (
        "Conventions, per image",
        "spikingformer_script",
        "yan2024_twin",
        "stem.stages.0.conv",
    ):
        assert word in out, word
    (folder,) = reports()
    record = json.loads((folder / "energy.json").read_text())
    assert (record["convention"], record["scalars"]["energy/n_samples"]) == ("exact", 360)
    assert record["config"]["timesteps"] == 4 and record["commit"]


def test_a_checkpoint_older_than_the_energy_settings_is_reported(cli, checkpoint):
    """Settings that a checkpoint does not know come from conf/, also for a plain evaluation."""
    old = torch.load(checkpoint, weights_only=True)
    for name in ("energy", "objective"):
        del old["hyper_parameters"]["config"][name]
    torch.save(old, "run/checkpoints/old.ckpt")
    for command in ("energy", "eval"):
        assert cli(command, "ckpt_path=run/checkpoints/old.ckpt")[0] == 0
    assert len(reports()) == 1


@pytest.mark.slow
def test_a_checkpoint_whose_spikes_were_bytes_is_as_good_as_any(cli, checkpoint):
    """memory.spikes=byte, an option once, is no part of what a run is: such a file is
    evaluated, drawn, loaded, and gone on from."""
    last = "run/checkpoints/last.ckpt"
    old = torch.load(last, weights_only=True)
    old["hyper_parameters"]["config"]["memory"] = {"spikes": "byte", "recompute": "neurons"}
    torch.save(old, last)
    assert cli("energy", f"ckpt_path={last}")[::2] == (0, "")
    assert draw(Path(last), [], 1, Path("figures"))
    memory = saformer.load(last).config.memory
    assert memory == MemoryConfig(spikes=SpikeStore.bit, recompute=Recompute.neurons)
    code, out, _ = cli("train", *SHORT, "energy=off", "epochs=3")
    assert code == 0 and "after epoch 2" in out


def test_the_convention_changes_the_number_and_not_the_count(cli, checkpoint):
    """Under another convention the layers are counted alike and charged differently."""
    found = {}
    for name in ("exact", "sdt"):
        assert cli("energy", f"ckpt_path={checkpoint}", f"energy={name}")[0] == 0
        for folder in reports():
            record = json.loads((folder / "energy.json").read_text())
            with (folder / "layers.csv").open() as file:
                rows = list(csv.DictReader(file))
            found[record["convention"]] = (
                record["scalars"]["energy/total_mJ"],
                [row["rate"] for row in rows],
            )
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()
    assert found["exact"][0] < found["sdt"][0]
    assert found["exact"][1] == found["sdt"][1]


def test_accuracy_and_energy_are_an_objective(cli, monkeypatch):
    """A sweeper is given the best epoch's metrics in the order in which they were named."""
    from saformer import cli as entry

    returned = []
    original = entry._train
    monkeypatch.setattr(entry, "_train", lambda composed: returned.append(original(composed)))
    assert cli("train", *SHORT, "objective=[val/top1,energy/total_mJ]")[0] == 0
    best = json.loads(Path("run/results.json").read_text())["best"]
    assert returned == [(best["val/top1"], best["energy/total_mJ"])]


@pytest.mark.parametrize(
    ("override", "answer"),
    [
        (
            "energy=exakt",
            "energy has no option 'exakt'. Did you mean 'exact'? Options: exact, neurobench, off, "
            "sdt, spikformer_paper, spikingformer_script, strict",
        ),
        (
            "energy.convention=strikt",
            "energy.convention must be one of exact, spikformer_paper, spikingformer_script, sdt, "
            "neurobench, strict, not strikt. Did you mean 'strict'?",
        ),
        ("energy.sample=3", "there is no setting 'energy.sample'. Did you mean 'energy.samples'?"),
        ("energy.samples=0", "energy.samples must be at least 1, not 0"),
        (
            "callbacks.checkpoint.monitor=energy/total_mJ energy=off",
            "callbacks.checkpoint.monitor=energy/total_mJ needs counting: type energy=exact",
        ),
        (
            "objective=[val/top1,energy/total_mJ] energy.every_n_epochs=2",
            "objective=energy/total_mJ needs a count in every epoch: type energy.every_n_epochs=1",
        ),
        ("objective=[]", "objective must name at least one metric, not []"),
    ],
)
def test_wrong_settings(cli, override, answer):
    """Each mistake is answered with what to type."""
    assert cli("train", *override.split()) == (2, "", f"error: {answer}\n")


def test_an_objective_that_was_not_measured(cli, tmp_path, monkeypatch):
    """The answer names what the best epoch has.

    Of a callback of one's own nobody knows beforehand what it logs.
    """
    Path("quiet.py").write_text("from lightning.pytorch import Callback as Quiet\n")
    monkeypatch.syspath_prepend(tmp_path)
    own = "+callbacks.mine._target_=quiet.Quiet"
    code, _, err = cli("train", *SHORT, "objective=[energy/mine]", own)
    assert code == 2
    assert err.startswith(
        "error: objective=energy/mine was not measured in the best epoch. It has "
    )
    assert "val/top1" in err and err.count("\n") == 1


def test_a_report_needs_a_checkpoint(cli):
    """Without one, the answer shows what to type."""
    assert "estimate its energy" in cli("energy", "--help")[1]
    code, _, err = cli("energy")
    assert (code, err.count("\n")) == (2, 1)
    assert "ckpt_path=RUN" in err


def test_a_report_without_a_test_batch(cli, checkpoint):
    """One line says that there is no result."""
    code, _, err = cli("energy", f"ckpt_path={checkpoint}", "+trainer.limit_test_batches=0")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("error: no test batch ran")


@pytest.mark.slow
def test_two_ranks_train(tmp_path):
    """A training on two processes ends well on both."""
    Path("train.py").write_text("from saformer.cli import train\ntrain()\n")
    command = [sys.executable, "train.py", *SHORT, "trainer.devices=2", "+trainer.strategy=ddp"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_two_ranks_count_count_as_one(checkpoint):
    """The whole test set on two processes gives the very same counts as on one, and one report."""
    Path("energy.py").write_text("from saformer.cli import energy\nenergy()\n")
    command = [sys.executable, "energy.py", f"ckpt_path={checkpoint}", "trainer.accelerator=cpu"]
    for devices in (1, 2):
        done = subprocess.run(
            [*command, f"trainer.devices={devices}"], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("Conventions, per image") == 1
    one, two = (json.loads((folder / "energy.json").read_text()) for folder in reports())
    assert one["scalars"]["energy/n_samples"] == two["scalars"]["energy/n_samples"] == 360
    for first, second in zip(one["layers"], two["layers"], strict=True):
        assert first == second
