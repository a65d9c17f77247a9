"""A checkpoint is named in the same way everywhere: a file, the folder of its run, or `latest`."""

import json
import os
import shutil
from pathlib import Path

import pytest

import saformer
from saformer.checkpoint_path import TO_GO_ON, checkpoint_file, latest_run
from saformer.errors import CheckpointError

RUN = "outputs/small/run"
SHORT = (
    *("logger=none", "trainer=cpu", "dataset.train_subset=200", "model.dim=16", "timesteps=1"),
    *("epochs=1", "scheduler.warmup_epochs=0", "energy=off", f"hydra.run.dir={RUN}"),
)


@pytest.fixture(scope="module")
def trained(shared_run) -> Path:
    return shared_run(*SHORT)


@pytest.fixture
def here(trained, tmp_path) -> Path:
    """A run in outputs/ of the current folder."""
    shutil.copytree(trained / "outputs", tmp_path / "outputs", dirs_exist_ok=True)
    return tmp_path / RUN


@pytest.mark.parametrize(
    "words",
    [
        (RUN,),
        ("latest",),
        (f"{RUN}/checkpoints",),
        (f"{RUN}/checkpoints/best.ckpt",),
        (f"ckpt_path={RUN}",),
        ("ckpt_path=latest",),
    ],
)
def test_each_name_is_the_same_checkpoint(cli, here, words):
    """eval finds the best checkpoint of a run by any of its names, the first word or a setting."""
    code, _out, err = cli("eval", *words)
    assert code == 0, err
    (found,) = (json.loads(path.read_text()) for path in here.glob("eval-*.json"))
    assert (
        found["test/top1"] == json.loads((here / "results.json").read_text())["test"]["test/top1"]
    )
    assert found["config"]["ckpt_path"].endswith(f"{RUN}/checkpoints/best.ckpt")


def test_the_folder_of_a_run_is_energy_figures_and_a_classifier(cli, here):
    """saformer-energy, saformer-plot spikes and saformer.load take the folder too."""
    assert cli("energy", RUN, "energy=exact")[0] == 0 and list(here.glob("energy-*"))
    assert cli("plot", "spikes", "latest", "--images", "1")[0] == 0 and list(here.glob("plots-*"))
    assert saformer.load(RUN).timesteps == saformer.load("latest").timesteps == 1


def test_training_goes_on_from_the_last_checkpoint_of_a_run(cli, here):
    """For a training the folder of a run is its last checkpoint, not its best one."""
    words = [word for word in SHORT if not word.startswith(("epochs", "hydra"))]
    code, _out, err = cli("train", *words, "epochs=2", "hydra.run.dir=on", f"ckpt_path={RUN}")
    assert code == 0, err
    start = json.loads(Path("on/run.json").read_text())["starts"][0]
    assert start["config"]["ckpt_path"] == f"{RUN}/checkpoints/last.ckpt"
    assert json.loads(Path("on/results.json").read_text())["epochs"] == 2


def test_the_latest_run_is_the_one_that_wrote_last(tmp_path):
    """Of several runs, in sweeps too, the one with the youngest checkpoint is `latest`."""
    for age, name in ((3, "outputs/a/1"), (1, "outputs/sweeps/b/2"), (2, "outputs/a/3")):
        folder = tmp_path / name / "checkpoints"
        folder.mkdir(parents=True)
        (folder / "last.ckpt").touch()
        os.utime(folder / "last.ckpt", (1e9 - age, 1e9 - age))
    assert latest_run() == Path("outputs/sweeps/b/2")
    assert checkpoint_file("latest", TO_GO_ON) == Path("outputs/sweeps/b/2/checkpoints/last.ckpt")
    Path("latest").touch()
    assert checkpoint_file("latest") == Path("latest")  # a file of that name is itself


def test_where_there_is_no_checkpoint(cli, tmp_path):
    """A folder without checkpoints, and `latest` before any run, are answered in one line."""
    with pytest.raises(CheckpointError, match="no run below outputs/ has a checkpoint"):
        checkpoint_file("latest")
    (tmp_path / "empty" / "deep").mkdir(parents=True)
    code, _out, err = cli("eval", "empty")
    assert code == 2 and err.count("\n") == 1
    assert err.startswith("error: ckpt_path=empty is a folder without checkpoints/best.ckpt or ")
    (tmp_path / "empty" / "deep" / "x.ckpt").touch()
    assert cli("energy", "empty")[2].endswith("; did you mean empty/deep/x.ckpt?\n")
    assert cli("eval", "latest")[2].startswith("error: ckpt_path=latest: no run below outputs/")


def test_a_job_names_its_checkpoint(cli, here, monkeypatch):
    """In a job `latest` is refused: each of its processes and starts could find another run."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    code, _out, err = cli("train", *SHORT, "ckpt_path=latest")
    assert code == 2 and "ckpt_path must name a run in a job" in err
