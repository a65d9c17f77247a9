"""Evaluate checkpoints from the command line, in their run and out of it."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from mostly_slow import mostly_slow
from short_run import SHORT, results

UNUSUAL = ("model.dim=32", "timesteps=2", "loss.label_smoothing=0.2")
"""Settings of which none is the default."""


@pytest.fixture
def unusual(trained):
    """A run of UNUSUAL, in the folder `run`."""
    shutil.copytree(trained(*UNUSUAL), "run")


def test_evaluation_restores_the_run(unusual, cli):
    """eval needs the checkpoint alone, wherever it lies, and finds the accuracy of the run."""
    expected = results("run")["test"]["test/top1"]
    Path("elsewhere").mkdir()
    shutil.copy("run/checkpoints/best.ckpt", "elsewhere/model.ckpt")
    for path, folder in (("run/checkpoints/best.ckpt", "run"), ("elsewhere/model.ckpt",) * 2):
        code, _out, err = cli("eval", f"ckpt_path={path}")
        assert (code, err) == (0, "")
        (written,) = Path(folder if folder == "run" else "elsewhere").glob("eval-*.json")
        assert json.loads(written.read_text())["test/top1"] == expected


def test_another_ones_checkpoint_is_evaluated_in_a_folder_of_ones_own(run, cli, monkeypatch):
    """Where the run's folder cannot be written, the result goes into the current one."""
    Path("mine").mkdir()
    monkeypatch.chdir("mine")
    before = sorted(Path("../run").rglob("*"))
    # Root may write everywhere, so the answer of the system is put in its place.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    for command, left in (("eval", "eval-*.json"), ("energy", "energy-*/report.md")):
        code, out, err = cli(command, "ckpt_path=../run/checkpoints/best.ckpt")
        assert (code, err) == (0, "")
        assert "../run cannot be written: the result goes into the current folder" in out
        assert len(list(Path().glob(left))) == 1
    assert sorted(Path("../run").rglob("*")) == before


def test_evaluation_changes_only_what_is_typed(unusual, cli):
    """An override at evaluation changes that setting and leaves the rest of the run's."""
    checkpoint = "ckpt_path=run/checkpoints/best.ckpt"
    assert cli("eval", checkpoint, "timesteps=3", "neuron.backend=loop", "trainer=cpu")[0] == 0
    (written,) = Path("run").glob("eval-*.json")
    config = json.loads(written.read_text())["config"]
    assert config["timesteps"] == 3
    assert config["neuron"]["backend"] == "loop"
    assert config["model"]["dim"] == 32
    assert config["loss"]["label_smoothing"] == 0.2


@pytest.mark.parametrize("precision", mostly_slow(["64-true", "bf16-true"]))
def test_weights_of_another_precision_are_given_their_own(train, cli, precision):
    """With weights in double or half precision a run trains, draws and is evaluated."""
    words = (f"trainer.precision={precision}", "model.dim=16", "plots=true")
    code, out, err = train("run", *words)
    assert (code, err, "could not" in out) == (0, "", False)
    assert list(Path("run/plots").iterdir())
    code, out, _err = cli("eval", "ckpt_path=run/checkpoints/best.ckpt")
    assert code == 0 and "test acc" in out
    (written,) = Path("run").glob("eval-*.json")
    evaluated = json.loads(written.read_text())
    assert evaluated["config"]["trainer"]["precision"] == precision
    assert evaluated["test/top1"] == results("run")["test"]["test/top1"]


STRANGER = {"_target_": "pathlib.Path.mkdir", "self": {"_target_": "pathlib.Path"}}


@pytest.mark.parametrize(("given", "taken"), [("64-true", "64-true"), (STRANGER, "32-true")])
def test_evaluation_has_a_trainer_of_its_own(run, cli, given, taken):
    """Of the trainer in a checkpoint the precision alone is taken: neither its devices, which this
    machine may not have, nor a class to be built, which a stranger may have chosen."""
    checkpoint = torch.load("run/checkpoints/best.ckpt", weights_only=True)
    config = checkpoint["hyper_parameters"]["config"]
    config["trainer"] = {**STRANGER, "devices": 64, "precision": given}
    torch.save(checkpoint, "run/checkpoints/best.ckpt")
    code, out, err = cli("eval", "ckpt_path=run/checkpoints/best.ckpt")
    assert (code, err) == (0, "") and "test acc" in out
    (written,) = Path("run").glob("eval-*.json")
    trainer = json.loads(written.read_text())["config"]["trainer"]
    assert trainer["_target_"] == "lightning.pytorch.Trainer"
    assert (trainer["devices"], trainer["precision"]) == (1, taken)


def test_evaluation_takes_the_threshold_that_is_typed(unusual, cli):
    """With a low threshold a trained network fires more: its checkpoint does not bring its own."""
    code, _, err = cli("energy", "ckpt_path=run/checkpoints/best.ckpt", "neuron.v_threshold=0.001")
    assert (code, err) == (0, "")
    (written,) = Path("run").glob("energy-*/energy.json")
    before = results("run")["energy"]["rate/mean"]
    assert json.loads(written.read_text())["scalars"]["rate/mean"] > before + 0.1


def test_evaluation_refuses_another_model(run, cli):
    """Settings that the weights cannot follow are refused by the name of the first weight."""
    path = "run/checkpoints/best.ckpt"
    code, _out, err = cli("eval", f"ckpt_path={path}", "model.dim=32")
    assert code == 2
    assert err.startswith(f"error: ckpt_path={path} does not fit this model: backbone.")
    code, _out, err = cli("eval", f"ckpt_path={path}", "ablation=no_dwc")
    assert (
        err == "error: ablation=no_dwc cannot be chosen here: a checkpoint brings its own model\n"
    )
    assert code == 2


@pytest.mark.parametrize("word", ["compile=true", "logger=csv", "optimizer.lr=1"])
def test_evaluation_refuses_what_it_does_not_read(run, cli, word):
    """A setting of training alone would stand in the result and have done nothing."""
    code, _out, err = cli("eval", "ckpt_path=run/checkpoints/best.ckpt", word)
    key = word.partition("=")[0]
    assert (code, err) == (
        2,
        f"error: {key} has no effect on a trained model: leave it out\n",
    )


def test_bad_checkpoints(run, cli):
    """Missing, folder, damaged, foreign: each fault has its one line, in train and in eval."""
    good = Path("run/checkpoints/last.ckpt")
    Path("cut.ckpt").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    Path("nothing/deep").mkdir(parents=True)
    Path("nothing/deep/cut.ckpt").touch()
    Path("empty.ckpt").touch()
    torch.save({"weights": torch.zeros(3)}, "foreign.ckpt")
    torch.save({"code": print}, "code.ckpt")
    cannot = "it is damaged or not a checkpoint; use another one of the same run"
    answers = {
        "missing.ckpt": "ckpt_path=missing.ckpt does not exist",
        "nothing": "; did you mean nothing/deep/cut.ckpt?",
        "cut.ckpt": cannot,
        "empty.ckpt": cannot,
        "code.ckpt": cannot,
        "foreign.ckpt": "ckpt_path=foreign.ckpt holds no SAFormer configuration: "
        "it comes from another program",
    }
    for path, answer in answers.items():
        for command in ("train", "eval"):
            extra = [*SHORT, "hydra.run.dir=again"] if command == "train" else []
            code, _out, err = cli(command, *extra, f"ckpt_path={path}")
            assert code == 2
            assert err.startswith("error: ckpt_path=") and err.endswith(f"{answer}\n")
            assert err.count("\n") == 1
