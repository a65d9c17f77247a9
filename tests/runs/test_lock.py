"""A run's folder is held by one start at a time, and by no process that is dead."""

import errno
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import yaml
from forked import finish, start
from mostly_slow import mostly_slow
from resumable import SHORT

from saformer.errors import InUseError
from saformer.runs.lock import held, holder

QUICK = (*SHORT[:-1], "callbacks=none", "energy=off", "dataset.train_subset=100", "epochs=2")
RUN = (*QUICK, "hydra.run.dir=run")


def wait_for(there: Callable[[], bool], process: BaseProcess) -> None:
    deadline = time.monotonic() + 60
    while not there():
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.001)


@contextmanager
def halted(process: BaseProcess) -> Iterator[None]:
    """Halt a process, which lives and does nothing meanwhile."""
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file below a folder with its bytes and when it was changed."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.mark.parametrize("moment", mostly_slow([".hydra/overrides.yaml", "metrics.jsonl"]))
def test_a_second_start_in_the_folder_of_a_run_is_refused_and_writes_nothing(tmp_path, moment):
    """Before the first one's run.json and in the midst of its epochs: one line says who is there,
    no byte of the folder is changed, and the first ends as if it had been alone."""
    run = tmp_path / "run"
    first = start(tmp_path, *RUN, "seed=1")
    wait_for((run / moment).exists, first)
    with halted(first):
        before = content(run)
        assert finish(tmp_path, *RUN, "seed=2", log="second") == 2
        assert content(run) == before
    assert re.fullmatch(
        rf"error: run is in use by process {first.pid} on \S+ since \S+ \S+: wait for its end, or "
        r"choose another folder with hydra\.run\.dir=\.\.\., of a sweep with "
        r"hydra\.sweep\.dir=\.\.\.\n",
        (tmp_path / "second").read_text(),
    )
    first.join()
    assert first.exitcode == 0
    alone = tmp_path / "alone"
    alone.mkdir()
    assert finish(alone, *RUN, "seed=1") == 0
    name = "metrics.jsonl"
    assert (run / name).read_bytes() == (alone / "run" / name).read_bytes()
    assert not (run / ".lock").exists()


def test_two_starts_at_the_same_moment_are_one_run(tmp_path):
    """Whichever is first trains, the other is refused, and the folder tells of the first alone."""
    both = [start(tmp_path, *RUN, f"seed={seed}", log=f"log{seed}") for seed in (1, 2)]
    for process in both:
        process.join()
    codes = [process.exitcode for process in both]
    assert sorted(codes) == [0, 2]
    seed = 1 + codes.index(0)
    assert f"seed={seed}" in (tmp_path / "run/.hydra/overrides.yaml").read_text()
    assert (tmp_path / "run/run.json").read_text().count('"config"') == 1


def test_a_killed_run_does_not_stand_in_the_way(tmp_path):
    """kill -9, and the same command again at once: it goes on, and leaves no lock."""
    first = start(tmp_path, *RUN)
    wait_for((tmp_path / "run/metrics.jsonl").exists, first)
    first.kill()
    first.join()
    assert (tmp_path / "run/.lock").exists() and holder(tmp_path / "run") is None
    assert finish(tmp_path, *RUN, log="second") == 0, (tmp_path / "second").read_text()
    assert not (tmp_path / "run/.lock").exists()


# Holds a folder, and forks a process that lives for ever, as those that read data nearly do.
PARENT = """
import os, time
from pathlib import Path
from saformer.runs.lock import held

with held(Path()):
    reader = os.fork()
    if reader:
        print(reader, flush=True)
    time.sleep(600)
"""


def test_what_a_killed_process_forked_does_not_hold_its_lock():
    """A loader's processes see only after seconds that theirs is dead; no start waits for them."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        reader = int(parent.stdout.readline())
        try:
            who = holder(Path())
            assert who is not None and who.startswith(f"process {parent.pid} on ")
            with pytest.raises(InUseError), held(Path()):
                pass
            parent.kill()
            parent.wait()
            assert holder(Path()) is None
            with held(Path()):
                os.kill(reader, 0)  # it lives
        finally:
            os.kill(reader, signal.SIGKILL)
    assert not Path(".lock").exists()


def test_a_file_system_without_locks_stops_no_training(cli, monkeypatch):
    """One line says that nothing is locked, and the run comes to its end."""

    def flock(descriptor: int, how: int) -> None:  # no such disk is at hand
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    code, out, err = cli("train", *RUN)
    assert (code, err) == (0, "")
    assert "run cannot be locked (No locks available): start no other run in it\n" in out
    assert Path("run/results.json").exists() and not Path("run/.lock").exists()


def test_two_sweeps_in_one_folder_do_not_mix(tmp_path):
    """The job of the second is refused, and shown so in its table; the first has its folder as if
    it had been alone."""
    words = (*QUICK, "-m", "hydra.sweep.dir=sweep")
    run = tmp_path / "sweep/0"
    first = start(tmp_path, *words, "seed=1")
    wait_for((run / "metrics.jsonl").exists, first)
    with halted(first):
        before = content(run)
        assert finish(tmp_path, *words, "seed=2", log="second") == 1
        assert content(run) == before
    said = (tmp_path / "second").read_text()
    rows = [line.split("│") for line in said.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in row[1:-1]] for row in rows] == [["1", "", "", "", "refused"]]
    assert f"job 1: sweep/0 is in use by process {first.pid} on " in said
    first.join()
    assert first.exitcode == 0


@pytest.mark.slow
def test_a_job_outlives_its_killed_sweep_and_keeps_its_folder(tmp_path):
    """A job of several processes is one of its own: while it trains nobody else comes in, and when
    it is killed too its folder is free."""
    words = (*QUICK, "-m", "seed=1", "hydra.sweep.dir=sweep", "trainer=ddp", "epochs=2000")
    words += ("trainer.accelerator=cpu", "trainer.devices=2", "optimizer.lr_batch=null")
    job = tmp_path / "sweep/0"
    first = start(tmp_path, *words)
    wait_for((job / "metrics.jsonl").exists, first)
    child = int(Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text())
    try:
        first.kill()
        first.join()
        before = (job / ".hydra/overrides.yaml").read_bytes(), (job / "run.json").read_bytes()
        assert finish(tmp_path, *QUICK, "hydra.run.dir=sweep/0", "seed=2", log="second") == 2
        assert "error: sweep/0 is in use by process " in (tmp_path / "second").read_text()
        os.kill(child, 0)
        after = (job / ".hydra/overrides.yaml").read_bytes(), (job / "run.json").read_bytes()
        assert after == before
    finally:
        os.killpg(child, signal.SIGKILL)  # a session of its own, with the second process in it
    deadline = time.monotonic() + 10
    while holder(job) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


TABLE = {"title": "One", "seeds": [0, 1], "columns": ["test_top1"], "rows": [{"label": "it"}]}


def test_a_table_leaves_alone_what_is_being_trained(cli, tmp_path):
    """It says which process trains it, gives no command for it, and --run starts nothing there;
    later it is a run like any other."""
    Path("one.yaml").write_text(yaml.safe_dump(TABLE | {"seeds": [0]}))
    first = start(tmp_path, *QUICK, "hydra.run.dir=outputs/it")
    wait_for(Path("outputs/it/run.json").exists, first)
    words = ("table", "one.yaml", *QUICK)
    with halted(first):
        before = content(tmp_path / "outputs/it")
        code, out, err = cli(*words)
        assert (code, err) == (0, "")
        assert (
            f"not counted: outputs/it (it, seed 0) is being trained by process {first.pid} on "
        ) in out
        assert "outputs/it " not in out.partition("1 of 1 runs are missing")[2]
        code, out, err = cli(*words, "--run")
        assert (code, err) == (0, "")
        assert f"[1/1] it, seed 0   is being trained by process {first.pid} on " in out
        assert content(tmp_path / "outputs/it") == before
    first.join()
    code, out, _err = cli(*words, "--run")
    assert code == 0 and "missing" not in out
    assert len(list(Path("outputs").rglob("results.json"))) == 1


@pytest.mark.slow
def test_two_tables_at_a_time_share_what_is_missing(tmp_path):
    """--run twice at the same moment trains every run once."""
    Path("one.yaml").write_text(yaml.safe_dump(TABLE))
    words = ("one.yaml", *QUICK, "--run")
    both = [start(tmp_path, *words, log=log, command="table") for log in ("a", "b")]
    for process in both:
        process.join()
    said = (tmp_path / "a").read_text() + (tmp_path / "b").read_text()
    assert [process.exitcode for process in both] == [0, 0], said
    runs = [json.loads(path.read_text()) for path in Path("outputs").rglob("run.json")]
    assert sorted(run["starts"][0]["config"]["seed"] for run in runs) == [0, 1]
    assert all(len(run["starts"]) == 1 for run in runs) and "is skipped: process " in said
    assert len(list(Path("outputs/tables").iterdir())) == 2
    assert not list(Path("outputs").glob(".*"))


def test_a_job_that_starts_again_waits_for_the_lock_of_its_dead_self(tmp_path, monkeypatch):
    """A file server drops it after a while; any other start is refused at once."""
    descriptor = os.open(tmp_path / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(InUseError), held(tmp_path):
        pass
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    threading.Timer(1.0, os.close, [descriptor]).start()
    with held(tmp_path):
        assert holder(tmp_path)


def test_a_lock_that_is_kept_out_by_permission_is_held(tmp_path, monkeypatch):
    """Where flock is emulated it answers so; the file of its holder stays."""

    def emulated(descriptor: int, operation: int) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    (tmp_path / ".lock").write_text("process 1 on far")
    monkeypatch.setattr("saformer.runs.lock.fcntl.flock", emulated)
    with pytest.raises(InUseError, match="process 1 on far"), held(tmp_path):
        pass
    assert (tmp_path / ".lock").exists()
