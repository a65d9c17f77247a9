"""On a real Slurm: sweeps, several ranks, requeues and cancellations, from submission to result.

`make test-slurm` runs this, on the Slurm that scripts/slurm_loopback.sh starts.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
LOOPBACK = ROOT / "scripts/slurm_loopback.sh"
SBATCH = ROOT / "scripts/train.sbatch"
PATIENCE = 300.0  # seconds, for machines with other work

# Epochs of one step each, of some 60 ms: it takes Slurm a second or two to stop a job, and a run of
# twelve epochs was over before.
EPOCHS = 120
RUN = (
    *("logger=none", "energy=off", "dataset.train_subset=100", "model.dim=16", "timesteps=1"),
    *(f"epochs={EPOCHS}", "augment.mixup=0.4"),
)
ON_CPU = ("trainer.accelerator=cpu",)
LAUNCHER = (
    "launcher=slurm",
    "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.gpus_per_node=null",
    "hydra.launcher.timeout_min=30",
)


@pytest.fixture(scope="module", autouse=True)
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Slurm on this machine, for this module."""
    before = dict(os.environ)
    os.environ["SLURM_LOOPBACK"] = str(tmp_path_factory.mktemp("slurm") / "loopback")
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    started = subprocess.run([LOOPBACK, "start"], stdout=subprocess.PIPE, text=True)
    assert started.returncode == 0
    os.environ["SLURM_CONF"] = started.stdout.strip().partition("=")[2]
    try:
        yield
    finally:
        subprocess.run([LOOPBACK, "stop"], check=True)
        os.environ.clear()
        os.environ.update(before)


def tell(*command: str | Path) -> str:
    """What a command of Slurm answers."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def submit(*words: str | Path) -> str:
    """Submit a job; returns its number."""
    return tell("sbatch", "--parsable", "--output=slurm-%j.log", *words)


def state(job: str) -> str:
    """State and restarts of a job: `COMPLETED 0`."""
    said = tell("scontrol", "--oneliner", "show", "job", job)
    (name,) = re.findall(r"JobState=(\w+)", said)
    (restarts,) = re.findall(r"Restarts=(\d+)", said)
    return f"{name} {restarts}"


def wait_for(what: Callable[[], object], log: Path | None = None) -> None:
    """Wait until something is so."""
    end = time.monotonic() + PATIENCE
    while not what():
        said = log.read_text() if log and log.exists() else ""
        assert time.monotonic() < end, said
        time.sleep(0.2)


def the_run() -> Path:
    """The one run folder that there is."""
    (metrics,) = Path("outputs").rglob("run.json")
    return metrics.parent


def epochs_done() -> int:
    return sum(len(path.read_text().splitlines()) for path in Path().rglob("metrics.jsonl"))


def ranks(*words: str) -> tuple[str, ...]:
    """Arguments of sbatch for a training by two ranks."""
    return ("--ntasks-per-node=2", "--cpus-per-task=1", "--gpus-per-node=2", str(SBATCH), *words)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, slurm: None) -> Path:
    """Folder in which a job trained with two ranks and was not disturbed."""
    folder = tmp_path_factory.mktemp("unbroken")
    before = Path.cwd()
    os.chdir(folder)
    try:
        job = submit(*ranks(*RUN, *ON_CPU))
        log = folder / f"slurm-{job}.log"
        wait_for(lambda: state(job).split()[0] not in ("PENDING", "RUNNING", "COMPLETING"), log)
        assert state(job) == "COMPLETED 0", log.read_text()
    finally:
        os.chdir(before)
    return folder


def test_two_ranks_of_a_job_train_as_one(unbroken, monkeypatch):
    """scripts/train.sbatch: one run folder, named by the job; each line is said once."""
    monkeypatch.chdir(unbroken)
    run = the_run()
    assert re.fullmatch(r"\d+-[0-9a-f]{6}", run.name)
    log = Path(f"slurm-{run.name.partition('-')[0]}.log").read_text()
    assert "Starting with 2 processes" in log
    assert log.count("saformer_tiny on digits") == log.count("test acc ") == 1
    assert [line.split()[1] for line in log.splitlines() if line.startswith("epoch ")] == [
        f"{epoch}/{EPOCHS}" for epoch in range(1, EPOCHS + 1)
    ]
    assert [path.name for path in run.glob("*.log")] == ["train.log"]
    (start,) = json.loads((run / "run.json").read_text())["starts"]
    assert start["slurm"]["SLURM_NTASKS"] == "2"
    assert json.loads((run / "results.json").read_text())["status"] == "done"


@pytest.mark.parametrize("notice", ["USR1", "TERM"])
def test_a_job_that_is_told_to_end_goes_on_where_it_was(unbroken, notice):
    """A notice in the middle of training: the job is requeued, finds its folder, goes on from its
    last checkpoint and ends with the same metrics, byte for byte."""
    job = submit(*ranks(*RUN, *ON_CPU))
    log = Path(f"slurm-{job}.log")
    wait_for(lambda: epochs_done() >= 2, log)
    tell("scancel", f"--signal={notice}", job)
    wait_for(lambda: state(job) == "COMPLETED 1", log)
    said = log.read_text()
    assert (
        f"SIG{notice}: job {job} is requeued, and will resume" in said and "Traceback" not in said
    )
    assert re.search(r"resuming from outputs/\S+/last.ckpt after epoch \d+", said)
    run = the_run()
    starts = json.loads((run / "run.json").read_text())["starts"]
    assert [start["slurm"].get("SLURM_RESTART_COUNT") for start in starts] == [None, "1"]
    (whole,) = unbroken.rglob("metrics.jsonl")
    assert (run / "metrics.jsonl").read_bytes() == whole.read_bytes()


def test_a_cancelled_job_stays_so_and_can_be_gone_on_with(unbroken):
    """scancel ends a job for good; its run goes on in its folder, to the same metrics."""
    job = submit(*ranks(*RUN, *ON_CPU))
    log = Path(f"slurm-{job}.log")
    wait_for(lambda: epochs_done() >= 2, log)
    tell("scancel", job)
    wait_for(lambda: state(job) == "CANCELLED 0", log)
    assert f"SIGTERM: job {job} is completing" in log.read_text()
    assert "Traceback" not in log.read_text()
    run = the_run()
    assert not (run / "results.json").exists()
    again = submit(*ranks(*RUN, *ON_CPU, f"hydra.run.dir={run}"))
    wait_for(lambda: state(again) == "COMPLETED 0", Path(f"slurm-{again}.log"))
    (whole,) = unbroken.rglob("metrics.jsonl")
    assert (the_run() / "metrics.jsonl").read_bytes() == whole.read_bytes()


def test_trainings_side_by_side_in_one_job(tmp_path):
    """Two srun at a time, of two ranks each: two run folders, neither meets the other's ranks."""
    words = ("trainer=ddp", "trainer.devices=2", *ON_CPU, *RUN, "epochs=3")
    train = f"srun --exact --ntasks=2 --ntasks-per-node=2 saformer-train {' '.join(words)}"
    lines = [f"{train} seed={seed} &" for seed in (1, 2)]
    Path("job.sh").write_text("\n".join(["#!/bin/bash", *lines, "wait -n && wait -n"]))
    job = submit("--ntasks-per-node=4", "job.sh")
    log = Path(f"slurm-{job}.log")
    wait_for(lambda: state(job).split()[0] not in ("PENDING", "RUNNING", "COMPLETING"), log)
    assert state(job) == "COMPLETED 0", log.read_text()
    runs = [path.parent for path in Path("outputs").rglob("results.json")]
    assert len(runs) == 2 and all(run.name.startswith(f"{job}-") for run in runs)


def sweep(*words: str) -> subprocess.Popen[str]:
    """Start a sweep as a user does at a prompt."""
    return subprocess.Popen(
        [sys.executable, ROOT / "train.py", "-m", *LAUNCHER, *RUN, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_sweep_is_an_array_of_jobs():
    """launcher=slurm: one task for each setting, below the folder of the sweep; the table has all
    of them, a job that failed is named with its reason, and the exit code is 1."""
    process = sweep("trainer=cpu", "epochs=3", "model.dim=16,30,32", "hydra.sweep.dir=sweep")
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, out
    ended = [line for line in out.splitlines() if line.startswith("│")]
    assert [line.split("│")[-2].strip() for line in ended] == ["done", "failed", "done"], out
    assert "job 2: model.dim must be divisible by 8" in out
    for number in (0, 2):
        (start,) = json.loads(Path("sweep", str(number), "run.json").read_text())["starts"]
        assert start["slurm"]["SLURM_ARRAY_TASK_ID"] == str(number)
    assert not Path("outputs").exists()


def test_ranks_of_a_sweeps_job_and_its_requeue(unbroken):
    """Two ranks in a job of a sweep, told to end by submitit's signal: the same job goes on, and
    the sweep that waits for it ends well."""
    process = sweep("trainer=ddp", "trainer.devices=2", *ON_CPU, "hydra.launcher.tasks_per_node=2")
    wait_for(lambda: epochs_done() >= 2 or process.poll() is not None)
    assert process.poll() is None, process.communicate()[0]
    job = tell("squeue", "--noheader", "--format=%A")
    tell("scancel", "--signal=USR2", job)
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, out
    assert "done" in out
    starts = json.loads((the_run() / "run.json").read_text())["starts"]
    assert [start["slurm"].get("SLURM_RESTART_COUNT") for start in starts] == [None, "1"]
    (whole,) = unbroken.rglob("metrics.jsonl")
    assert (the_run() / "metrics.jsonl").read_bytes() == whole.read_bytes()


def test_a_mistake_in_the_job_is_told_at_the_prompt():
    """A partition that is not there: one line, exit code 2."""
    process = sweep("trainer=cpu", "hydra.launcher.partition=moon", "seed=0,1")
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    (line,) = [line for line in out.splitlines() if line.startswith("error: ")]
    assert "invalid partition" in line and "Traceback" not in out
