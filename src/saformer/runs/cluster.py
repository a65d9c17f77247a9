"""Where a run's processes come from: names of runs, ranks, and Slurm's or torchrun's environment.

A run is trained by one process, or by several (ranks) that Lightning, torchrun or srun start. All
of them must agree on the run's folder, and one of them speaks. Torch is imported only where needed.
"""

import functools
import hashlib
import logging
import os
import re
import secrets
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from subprocess import PIPE
from types import FrameType
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from saformer.errors import SettingError, UserError
from saformer.escape import override
from saformer.names import require_name
from saformer.runs.lock import handed_on

log = logging.getLogger(__name__)

PATIENCE = 30.0  # seconds
# Slurm's names for a shell on a node; what is typed there belongs together only within one srun.
SHELLS = ("bash", "interactive")
NAMING = (
    *("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_STEP_ID"),
    "TORCHELASTIC_RUN_ID",
)
# By these Slurm says that a job is about to end, and by these any run is asked to (Windows knows a
# part of them).
NOTICES = [s for s in signal.Signals if s.name in ("SIGTERM", "SIGUSR1", "SIGUSR2")]
ENDINGS = [s for s in signal.Signals if s.name in ("SIGINT", "SIGHUP")] + NOTICES


@functools.cache
def run_id() -> str:
    """Name of this process's run folder, the same in all ranks of a run.

    In a batch job of Slurm: `<job>-<digest>`, for an array `<job>_<task>-<digest>`; the digest is
    that of the command line. A requeued job finds its folder again, and several trainings in one
    job have one each. Under `torchrun --rdzv-id=NAME`: `NAME-<digest>`, likewise. Else the time of
    start and a random tail, which keeps apart two runs that start in the same second.

    Raises:
        SettingError: The environment names the run by something that is no name of a folder.
    """
    environ = os.environ
    for variable in NAMING:
        if variable in environ:
            require_name(variable, environ[variable])
    now = f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{secrets.token_hex(4)}"
    if in_batch_job():
        job = environ["SLURM_JOB_ID"]
        if "SLURM_ARRAY_JOB_ID" in environ:
            job = f"{environ['SLURM_ARRAY_JOB_ID']}_{environ['SLURM_ARRAY_TASK_ID']}"
        return f"{job}-{_digest(sys.argv[1:])}"
    if "TORCHELASTIC_RUN_ID" in environ:
        name = environ["TORCHELASTIC_RUN_ID"]
        # Without --rdzv-id torchrun takes this word, or draws a UUID.
        drawn = name == "none" or re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", name)
        return _agreed(now) if drawn else f"{name}-{_digest(sys.argv[1:])}"
    if _srun_tasks() > 1:  # typed at a prompt: each srun is a run of its own
        return f"{environ['SLURM_JOB_ID']}.{environ['SLURM_STEP_ID']}"
    return now


def _digest(words: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:6]


def _agreed(proposal: str) -> str:
    """The proposal of the first rank that comes to torchrun's store, also after its restarts."""
    from datetime import timedelta

    from torch.distributed import TCPStore

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(address, port, is_master=False, timeout=timedelta(minutes=5))
    return bytes(store.compare_set("saformer/run_id", "", proposal)).decode()


# On import, because the node of a sweep's job imports this and composes, and does nothing else.
OmegaConf.register_new_resolver("run_id", run_id, replace=True)


def pin_sweep_folder(config: DictConfig) -> None:
    """Make all jobs of a sweep go below the folder that this process sees.

    Each job composes its configuration anew, on another node or with another `name`.

    Args:
        config: The composed configuration with its `hydra` node; changed in place.
    """
    folder = override(str(config.hydra.sweep.dir))
    with open_dict(config.hydra.overrides):
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir={folder}")


def rank() -> int:
    """Number of this process among those of its run."""
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):  # torchrun, Lightning, srun
        if name in os.environ:
            return int(os.environ[name])
    return 0


def speaks() -> bool:
    """Whether an error of this process is to be told.

    Before the ranks work together, all of one node make a mistake alike. So the others give the
    first one time to tell it: what has started them ends them with it, and they get no further than
    this. Later each has its own.
    """
    first = ("LOCAL_RANK", "SLURM_LOCALID")
    local = next((int(os.environ[name]) for name in first if name in os.environ), 0)
    dist = sys.modules.get("torch.distributed")
    if local == 0 or (dist is not None and dist.is_available() and dist.is_initialized()):
        return True
    parent = os.getppid()
    time.sleep(PATIENCE)
    return os.getppid() == parent  # Lightning's first process is the parent of the others


def prepare() -> None:
    """Set up this process as one of its run: what Lightning must know, and who writes logs."""
    environ = os.environ
    if _srun_tasks() > 1:
        # Lightning takes what is started below a shell on a node for a single process.
        if environ.get("SLURM_JOB_NAME") in SHELLS:
            environ["SLURM_JOB_NAME"] = "srun"
        # Its own choice depends on the job alone: two srun at a time would meet at one port.
        step = (environ["SLURM_JOB_ID"], environ["SLURM_STEP_ID"])
        environ.setdefault("MASTER_PORT", str(15000 + int(_digest(step), 16) % 15000))
    if rank() > 0:
        close_log_files()
        for handler in logging.getLogger().handlers:
            handler.setLevel(logging.ERROR)
        warnings.simplefilter("ignore")


def close_log_files() -> None:
    """Write no log file from here on: Hydra's opens itself, and makes its file, when it is used."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, logging.FileHandler):
            root.removeHandler(handler)
            handler.close()


def require_processes(devices: int, nodes: int) -> None:
    """Refuse a trainer that does not fit the processes that were started around it.

    Left alone it would wait for others for ever, or train the same run several times.

    Args:
        devices: Devices of the trainer on each node, a process for each.
        nodes: Nodes of the trainer.

    Raises:
        SettingError: Another number was started, or none of those that Slurm has reserved.
    """
    environ, wanted = os.environ, devices * nodes
    if "TORCHELASTIC_RUN_ID" in environ:
        started, by = int(environ["WORLD_SIZE"]), "torchrun"
    elif "SLURM_NTASKS" in environ and environ.get("SLURM_JOB_NAME") not in SHELLS:
        if "SLURM_STEP_ID" not in environ and wanted > 1:
            raise SettingError(
                f"in a Slurm job the {wanted} processes of this run are started by srun: type srun "
                f"--ntasks-per-node={devices} before the command"
            )
        started, by = _srun_tasks(), "srun"
    elif nodes > 1:
        raise SettingError(
            f"trainer.num_nodes={nodes} needs srun or torchrun to start the processes of all nodes"
        )
    else:
        return
    if started != wanted:
        raise SettingError(
            f"trainer.devices={devices} x trainer.num_nodes={nodes} does not make the {started} "
            f"process(es) that {by} started: choose trainer=ddp, and as many devices as {by} "
            "starts processes on a node"
        )


def _srun_tasks() -> int:
    """Processes that the srun around this one has started; 1 without srun."""
    environ = os.environ
    return int(environ.get("SLURM_STEP_NUM_TASKS", 1)) if "SLURM_STEP_ID" in environ else 1


def started_outside() -> bool:
    """Whether torchrun or srun started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ or _srun_tasks() > 1


def require_alone() -> None:
    """Refuse a multirun in each of several processes.

    Raises:
        SettingError: torchrun or srun started them, and each would run the whole sweep.
    """
    if started_outside():
        raise SettingError(
            "with -m torchrun and srun would run the whole sweep in each process: leave them out "
            "(trainer=ddp starts the processes of each job itself), or add launcher=slurm"
        )


def in_job() -> bool:
    """Whether Slurm or torchrun has started this process."""
    return any(variable in os.environ for variable in NAMING)


def in_batch_job() -> bool:
    """Whether this process belongs to a job that sbatch has queued, and that can be requeued."""
    return os.environ.get("ENVIRONMENT") == "BATCH" and "SLURM_JOB_ID" in os.environ


def heeds_notices() -> bool:
    """Whether this process acts when Slurm says that the job ends.

    Slurm tells all ranks; were the others to stop, the first could not leave the work they share.
    """
    return rank() == 0 or not in_batch_job()


def hand_back(number: int) -> None:
    """Give this job back to Slurm's queue: it starts again, and goes on from its last checkpoint.

    A job that was cancelled stays so; that is seen from its state, which is no longer RUNNING.

    Args:
        number: The signal that announced the end.
    """
    if not in_batch_job():
        return
    job, name = os.environ["SLURM_JOB_ID"], signal.Signals(number).name
    state = _slurm("squeue", "--noheader", "--format=%T", f"--jobs={job}").stdout.strip()
    if number == signal.SIGTERM and state != "RUNNING":
        log.warning("%s: job %s is %s", name, job, state.lower() or "gone")
        return
    answer = _slurm("scontrol", "requeue", job)
    if answer.returncode:
        log.warning("%s: job %s is not requeued: %s", name, job, answer.stderr.strip())
    else:
        log.warning("%s: job %s goes back to the queue, and on from its last checkpoint", name, job)


def _slurm(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def refusal(error: BaseException) -> str | None:
    """What Slurm has against the jobs of launcher=slurm, in one line; None for any other error."""
    said = " ".join(str(error).split())
    if "Could not detect" in said and "srun" in said:
        return "launcher=slurm finds no srun on this machine: start it where jobs are submitted"
    return said if type(error).__module__.startswith("submitit.") else None


def needs_own_process(trainer: dict[str, Any]) -> bool:
    """Whether Lightning would start further processes for this job of a multirun.

    They repeat the command line, which is that of the whole sweep, and a job that failed would
    take the sweep with it.
    """
    several = trainer.get("devices") not in (1, "1") or trainer.get("strategy", "auto") != "auto"
    return several and HydraConfig.get().mode is RunMode.MULTIRUN and not started_outside()


def run_apart(folder: Path) -> None:
    """Run this job of a multirun in a process of its own, as if it had been typed alone.

    Args:
        folder: Folder of the job.

    Raises:
        UserError: It failed; the message is its own.
        KeyboardInterrupt: A signal ended it.
    """
    chosen = HydraConfig.get()
    words = [
        *chosen.overrides.task,
        f"hydra.run.dir={override(str(folder))}",
        f"hydra.job.num={chosen.job.num}",
    ]
    command = [sys.executable, "-m", "saformer.cli", *words]
    lock, environ = handed_on()
    failure = ""
    # In a session of its own, so that Ctrl-C comes to it once, from here.
    with (
        subprocess.Popen(
            command,
            stderr=PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
            pass_fds=lock,
            env=environ,
        ) as child,
        _passed_on(child),
    ):
        assert child.stderr is not None
        for line in child.stderr:
            if line.startswith("error: ") and not failure:  # is told by what catches it
                failure = line.removeprefix("error: ").rstrip()
                continue
            if told := re.match(r"error in process \d+: (.*)", line):
                failure = failure or told[1]
            sys.stderr.write(line)
    code = child.returncode
    ended_by = -code if code < 0 else code - 128  # died of it, or answered it
    if ended_by in ENDINGS:
        raise KeyboardInterrupt(ended_by)
    if code:
        raise UserError(failure or f"its process ended with exit code {code}")


def interruption(error: KeyboardInterrupt) -> tuple[str, int]:
    """What ended a run, in words, and the exit code of a shell for it.

    Args:
        error: Its argument is the number of the signal; without one it was Ctrl-C.
    """
    number = error.args[0] if error.args else signal.SIGINT
    words = (
        "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
    )
    return words, 128 + number


@contextmanager
def _passed_on(child: subprocess.Popen[str]) -> Iterator[None]:
    """Pass on to a child what asks this process to end."""

    def pass_on(number: int, _: FrameType | None) -> None:
        child.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in ENDINGS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
