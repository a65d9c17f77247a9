"""The processes of a run: names of runs, ranks, and the environment of Slurm or torchrun.

One process trains a run, or several (ranks) that Lightning, torchrun or srun start. All of them
must use the same run folder, and only one of them prints. Torch is imported only where needed.
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

PATIENCE = 30.0  # seconds that other ranks wait before they print an error
# Slurm's job names of an interactive shell on a node; there each srun is a run of its own.
SHELLS = ("bash", "interactive")
NAMING = (
    *("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_STEP_ID"),
    "TORCHELASTIC_RUN_ID",
)
# NOTICES are the signals with which Slurm announces the end of a job; ENDINGS are all signals that
# ask a run to end. Windows has only some of them.
NOTICES = [s for s in signal.Signals if s.name in ("SIGTERM", "SIGUSR1", "SIGUSR2")]
ENDINGS = [s for s in signal.Signals if s.name in ("SIGINT", "SIGHUP")] + NOTICES


@functools.cache
def run_id() -> str:
    """Name of this process's run folder, the same in all ranks of a run.

    In a Slurm batch job it is `<job>-<digest>`, or `<job>_<task>-<digest>` for an array, with a
    digest of the command line. So a requeued job finds its folder again, and several trainings in
    one job have different folders. With `torchrun --rdzv-id=NAME` it is `NAME-<digest>`. Otherwise
    it is the start time and a random suffix, because two runs may start in the same second.

    Raises:
        SettingError: A name from the environment cannot be the name of a folder.
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
        # Without --rdzv-id, torchrun uses the word none or a random UUID.
        drawn = name == "none" or re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", name)
        return _agreed(now) if drawn else f"{name}-{_digest(sys.argv[1:])}"
    if _srun_tasks() > 1:  # in an interactive shell, each srun is a run of its own
        return f"{environ['SLURM_JOB_ID']}.{environ['SLURM_STEP_ID']}"
    return now


def _digest(words: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:6]


def _agreed(proposal: str) -> str:
    """Agree on the proposal of the rank that is first at torchrun's store, also after restarts."""
    from datetime import timedelta

    from torch.distributed import TCPStore

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(address, port, is_master=False, timeout=timedelta(minutes=5))
    return bytes(store.compare_set("saformer/run_id", "", proposal)).decode()


# Register on import: the node of a sweep's job only imports this module before it composes.
OmegaConf.register_new_resolver("run_id", run_id, replace=True)


def pin_sweep_folder(config: DictConfig) -> None:
    """Fix the sweep folder, so that all jobs of a sweep write below the same folder.

    Each job composes its configuration again, maybe on another node or with another `name`, and
    could otherwise get another folder.

    Args:
        config: The composed configuration with its `hydra` node; changed in place.
    """
    folder = override(str(config.hydra.sweep.dir))
    with open_dict(config.hydra.overrides):
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir={folder}")


def rank() -> int:
    """Rank of this process in its run."""
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):  # torchrun, Lightning, srun
        if name in os.environ:
            return int(os.environ[name])
    return 0


def speaks() -> bool:
    """Whether this process should print its error.

    Before the ranks communicate, all ranks of a node fail with the same error. So the other ranks
    wait here while the first one prints it; then the launcher usually kills them. Later, each rank
    has its own error and prints it.
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
    """Set up this process as a rank of its run: environment of Lightning, and logging."""
    environ = os.environ
    if _srun_tasks() > 1:
        # Lightning ignores srun in an interactive shell, which it recognises by the job's name.
        if environ.get("SLURM_JOB_NAME") in SHELLS:
            environ["SLURM_JOB_NAME"] = "srun"
        # Lightning derives its port only from the job, so two srun of a job would use the same one.
        step = (environ["SLURM_JOB_ID"], environ["SLURM_STEP_ID"])
        environ.setdefault("MASTER_PORT", str(15000 + int(_digest(step), 16) % 15000))
    if rank() > 0:
        close_log_files()
        for handler in logging.getLogger().handlers:
            handler.setLevel(logging.ERROR)
        warnings.simplefilter("ignore")


def close_log_files() -> None:
    """Close all log files; Hydra's log handler would create its file at the first message."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, logging.FileHandler):
            root.removeHandler(handler)
            handler.close()


def require_processes(devices: int, nodes: int) -> None:
    """Refuse a trainer whose number of processes differs from the number that was started.

    The trainer would wait for other processes forever, or train the same run several times.

    Args:
        devices: Devices of the trainer on each node, with one process each.
        nodes: Nodes of the trainer.

    Raises:
        SettingError: Another number of processes was started, or srun was not used in a Slurm job.
    """
    environ, wanted = os.environ, devices * nodes
    if "TORCHELASTIC_RUN_ID" in environ:
        started, by = int(environ["WORLD_SIZE"]), "torchrun"
    elif "SLURM_NTASKS" in environ and environ.get("SLURM_JOB_NAME") not in SHELLS:
        if "SLURM_STEP_ID" not in environ and wanted > 1:
            raise SettingError(
                f"in a Slurm job, srun must start the {wanted} processes of this run: type srun "
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
    """Number of processes that srun has started for this run; 1 without srun."""
    environ = os.environ
    return int(environ.get("SLURM_STEP_NUM_TASKS", 1)) if "SLURM_STEP_ID" in environ else 1


def started_outside() -> bool:
    """Whether torchrun or srun started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ or _srun_tasks() > 1


def require_alone() -> None:
    """Refuse a multirun that torchrun or srun started in several processes.

    Raises:
        SettingError: Several processes were started, so each would run the whole sweep.
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
    """Whether this process belongs to a job of sbatch, which can be requeued."""
    return os.environ.get("ENVIRONMENT") == "BATCH" and "SLURM_JOB_ID" in os.environ


def heeds_notices() -> bool:
    """Whether this process acts on a notice of Slurm that the job ends.

    Slurm notifies all ranks. Only the first rank acts in a batch job: if the other ranks stopped,
    the first one would hang in their common communication.
    """
    return rank() == 0 or not in_batch_job()


def hand_back(number: int) -> None:
    """Requeue this Slurm job; it will start again and resume from its last checkpoint.

    A job that the user cancelled is not requeued; its state is no longer RUNNING.

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
        log.warning("%s: job %s is requeued, and will resume from its last checkpoint", name, job)


def _slurm(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def refusal(error: BaseException) -> str | None:
    """One line on why Slurm refuses the jobs of launcher=slurm; None for any other error."""
    said = " ".join(str(error).split())
    if "Could not detect" in said and "srun" in said:
        return "launcher=slurm finds no srun on this machine: start it on a login node of Slurm"
    return said if type(error).__module__.startswith("submitit.") else None


def needs_own_process(trainer: dict[str, Any]) -> bool:
    """Whether Lightning would start further processes for this job of a multirun.

    Such processes repeat the command line, so they would start the whole sweep again. Also, a
    failing job would end the sweep.
    """
    several = trainer.get("devices") not in (1, "1") or trainer.get("strategy", "auto") != "auto"
    return several and HydraConfig.get().mode is RunMode.MULTIRUN and not started_outside()


def run_apart(folder: Path) -> None:
    """Run this job of a multirun in its own process, like a single command.

    Args:
        folder: Folder of the job.

    Raises:
        UserError: The process failed; the message is that of the process.
        KeyboardInterrupt: A signal ended the process.
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
    # In a new session, so that only this process, and not the terminal, passes Ctrl-C to the child.
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
            if line.startswith("error: ") and not failure:  # the caller prints it
                failure = line.removeprefix("error: ").rstrip()
                continue
            if told := re.match(r"error in process \d+: (.*)", line):
                failure = failure or told[1]
            sys.stderr.write(line)
    code = child.returncode
    ended_by = -code if code < 0 else code - 128  # a signal killed it, or it handled the signal
    if ended_by in ENDINGS:
        raise KeyboardInterrupt(ended_by)
    if code:
        raise UserError(failure or f"its process ended with exit code {code}")


def interruption(error: KeyboardInterrupt) -> tuple[str, int]:
    """Describe what ended a run, and give the exit code that a shell uses for it.

    Args:
        error: Its argument is the number of the signal; without an argument it was Ctrl-C.
    """
    number = error.args[0] if error.args else signal.SIGINT
    words = (
        "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
    )
    return words, 128 + number


@contextmanager
def _passed_on(child: subprocess.Popen[str]) -> Iterator[None]:
    """Pass signals that ask this process to end on to a child process."""

    def pass_on(number: int, _: FrameType | None) -> None:
        child.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in ENDINGS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
