"""Names of runs and what a process must know of those that train with it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from torch.distributed import TCPStore

from saformer.errors import SettingError
from saformer.runs import cluster

ABOUT_US = ("SLURM", "TORCHELASTIC", "SUBMITIT", "ENVIRONMENT", "RANK", "LOCAL_RANK", "MASTER")
BATCH = {"ENVIRONMENT": "BATCH", "SLURM_JOB_ID": "71"}
ARRAY = {"SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": "3"}
STEP = {
    **{"SLURM_JOB_ID": "71", "SLURM_STEP_ID": "2", "SLURM_STEP_NUM_TASKS": "4"},
    **{"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "train.sh"},
}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4", "RANK": "1", "LOCAL_RANK": "1"}


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replace what launchers tell this process."""

    def call(variables: dict[str, str], *words: str) -> None:
        for name in [name for name in os.environ if name.startswith(ABOUT_US)]:
            monkeypatch.delenv(name)
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["train.py", *words])

    return call


def run_id() -> str:
    """The name that a new process would choose."""
    return cluster.run_id.__wrapped__()


def test_runs_of_the_same_second_have_names_of_their_own(environ):
    """Outside of clusters, names are times with tails that differ."""
    environ({})
    names = {run_id() for _ in range(20)}
    assert len(names) == 20 and len({name.rpartition("-")[0] for name in names}) <= 2


@pytest.mark.parametrize(
    ("variables", "start"),
    [
        (BATCH, "71-"),
        (BATCH | STEP, "71-"),
        (BATCH | ARRAY, "70_3-"),
        (TORCHRUN | {"TORCHELASTIC_RUN_ID": "mine"}, "mine-"),
        (BATCH | TORCHRUN, "71-"),
    ],
)
def test_a_restarted_job_finds_its_folder_and_no_other(environ, variables, start):
    """A name follows from job and command line: equal after a requeue, in each rank and step; two
    commands in one job have two names."""
    environ(variables, "seed=1")
    name = run_id()
    assert name.startswith(start)
    environ(variables | {"SLURM_RESTART_COUNT": "1", "SLURM_PROCID": "3", "RANK": "3"}, "seed=1")
    assert run_id() == name
    environ(variables | {"SLURM_STEP_ID": "7"}, "seed=1")
    assert run_id() == name
    environ(variables, "seed=2")
    assert run_id() != name


def test_each_srun_at_a_prompt_is_a_run(environ):
    """Below a shell on a node the ranks of one srun agree, and the next srun is another run; a
    single process there has a name as anywhere."""
    environ(STEP | {"SLURM_PROCID": "1"})
    assert run_id() == "71.2"
    environ(STEP | {"SLURM_STEP_NUM_TASKS": "1"})
    assert run_id() != run_id()


@pytest.mark.parametrize("name", ["none", "bc2ffc33-40fb-4c78-9b99-e0ad00b44e96"])
def test_ranks_of_torchrun_agree_through_its_store(environ, name):
    """All ranks take the name that the first of them proposed, whatever the second it is."""
    store = TCPStore("127.0.0.1", 0, is_master=True)
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    environ(TORCHRUN | address | {"TORCHELASTIC_RUN_ID": name})
    first = run_id()
    assert first.startswith("20") and {run_id() for _ in range(3)} == {first}


@pytest.mark.parametrize(
    ("variables", "devices", "nodes", "said"),
    [
        ({}, 2, 1, None),
        ({}, 1, 1, None),
        ({}, 8, 2, "trainer.num_nodes=2 needs srun or torchrun"),
        (TORCHRUN, 4, 1, None),
        (TORCHRUN, 2, 2, None),
        (TORCHRUN, 1, 1, "does not make the 4 process(es) that torchrun started"),
        (STEP, 4, 1, None),
        (STEP, 1, 1, "does not make the 4 process(es) that srun started"),
        (
            STEP | {"SLURM_STEP_NUM_TASKS": "1"},
            2,
            1,
            "does not make the 1 process(es) that srun started",
        ),
        ({**BATCH, "SLURM_NTASKS": "4"}, 4, 1, "type srun --ntasks-per-node=4 before the command"),
        ({**BATCH, "SLURM_NTASKS": "4"}, 1, 1, None),
        (BATCH, 4, 1, None),
        ({"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "interactive"}, 4, 1, None),
    ],
)
def test_a_trainer_that_would_wait_for_ever_is_refused(environ, variables, devices, nodes, said):
    """The processes that a trainer counts on must be those that were started."""
    environ(variables)
    if said is None:
        cluster.require_processes(devices, nodes)
        return
    with pytest.raises(SettingError) as refused:
        cluster.require_processes(devices, nodes)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("variables", "rank", "waits"),
    [
        ({}, 0, False),
        ({"LOCAL_RANK": "1"}, 1, True),
        ({"LOCAL_RANK": "0", "RANK": "8"}, 8, False),
        ({"SLURM_PROCID": "5", "SLURM_LOCALID": "1"}, 5, True),
        ({"SLURM_PROCID": "4", "SLURM_LOCALID": "0"}, 4, False),
    ],
)
def test_one_process_of_a_node_tells_a_mistake_first(environ, monkeypatch, variables, rank, waits):
    """The others leave it time, and tell theirs if they are still there."""
    environ(variables)
    monkeypatch.setattr(cluster, "PATIENCE", 0.2)
    start = time.perf_counter()
    assert (cluster.rank(), cluster.speaks()) == (rank, True)
    assert (time.perf_counter() - start > 0.15) == waits


def test_two_sruns_at_a_time_meet_at_two_ports(environ):
    """Trainings side by side in one job do not take each other's port, and a typed one stays."""
    ports = set()
    for step in ("2", "3"):
        environ(STEP | {"SLURM_STEP_ID": step, "SLURM_JOB_NAME": "interactive"})
        cluster.prepare()
        ports.add(int(os.environ["MASTER_PORT"]))
        assert os.environ["SLURM_JOB_NAME"] not in cluster.SHELLS
    assert len(ports) == 2 and all(15000 <= port < 30000 for port in ports)
    environ(STEP | {"MASTER_PORT": "1234"})
    cluster.prepare()
    assert os.environ["MASTER_PORT"] == "1234"


def test_all_jobs_of_a_sweep_share_its_folder(cli):
    """Also jobs whose `name`, of which the folder is made, is their own."""
    quick = ("trainer=debug", "logger=none", "timesteps=1", "model.dim=16")
    place = "hydra.sweep.dir='a b, \"c\"/${name}/${run_id:}'"
    code, _out, err = cli("train", "-m", *quick, "name=one,two", place)
    assert (code, err) == (0, "")
    (sweep,) = Path('a b, "c"').glob("*/*")
    assert sorted(path.parent.name for path in sweep.glob("*/results.json")) == ["0", "1"]


def test_launcher_slurm_wants_a_sweep(cli):
    """One run is not silently trained here instead."""
    assert cli("train", "launcher=slurm") == (
        2,
        "",
        "error: launcher=slurm is for the runs of a sweep: add -m\n",
    )


def test_launcher_slurm_without_its_plugin_says_what_to_install():
    """The extra is named in the one line that answers."""
    script = "import hydra_plugins; hydra_plugins.__path__ = []; from saformer.cli import train; "
    done = subprocess.run(
        [sys.executable, "-c", script + "train()", "-m", "launcher=slurm", "seed=0,1"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: hydra/launcher has no option 'submitit_slurm'.")
    assert "pip install 'saformer[slurm]'" in done.stderr


def test_a_sweep_in_each_of_several_processes_is_refused(cli, environ):
    """-m under torchrun or srun is answered before anything is made."""
    for variables in (STEP | {"SLURM_LOCALID": "0"}, TORCHRUN | {"LOCAL_RANK": "0"}):
        environ(variables)
        code, out, err = cli("train", "-m", "seed=0,1")
        assert (code, out, err.count("\n")) == (2, "", 1)
        told = err.replace(" in process 1", "")  # the first of its node, which is not the first
        assert told.startswith("error: with -m torchrun and srun would run")
    assert not Path("outputs").exists()


def test_what_ended_a_run_is_told_by_its_exit_code():
    """Ctrl-C is 130, another signal 128 and its number, as shells have it."""
    assert cluster.interruption(KeyboardInterrupt()) == ("interrupted", 130)
    assert cluster.interruption(KeyboardInterrupt(signal.SIGUSR1)) == ("stopped by SIGUSR1", 138)
