"""Runs in processes of their own that can be killed, without the seconds that torch takes to start.

The first run starts a server that imports the program once; every run is a fork of it.
"""

import itertools
import multiprocessing
import os
import resource
import signal
import sys
import threading
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from undrawn import undrawn

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.link", "os.symlink", "os.truncate"}

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["forked", "saformer.cli", "saformer.runs.experiment", "saformer.energy.report"]
)


def start(
    folder: Path,
    *args: str,
    log: str = "log",
    die_at: int = 0,
    how: str | float = "before",
    command: str = "train",
) -> BaseProcess:
    """Start `train.py args` in a folder; what it prints goes to the file `log` there.

    Figures are drawn for `plots=true` alone.

    At its end the file `changes` there says how often it changed a file: opened it for writing,
    renamed it, made or removed it.

    Args:
        folder: Working folder.
        args: The command line.
        log: Name of the file.
        die_at: Kill it at its `die_at`-th change of a file; 0 lets it live.
        how: `before` the change; `within` it, when the first of what is written is in the file; or
            so many seconds after.
        command: Another function of `saformer.cli` than `train`.
    """
    words = tuple(undrawn(command, args))
    process = _context.Process(target=_run, args=(folder, words, log, die_at, how, command))
    process.start()
    return process


def finish(folder: Path, *args: str, **options: Any) -> int:
    """Run `train.py args` to its end, as `start`, and return its exit code."""
    process = start(folder, *args, **options)
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _run(
    folder: Path, args: tuple[str, ...], log: str, die_at: int, how: str | float, command: str
) -> None:
    os.chdir(folder)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    # Those of the server go elsewhere.
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
    import saformer.cli

    sys.argv = ["train.py", *args]
    changes = itertools.count(1)

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(args[2], int) and args[2] & WRITING
        if not (writes or event in CHANGES) or next(changes) != die_at:
            return
        if how == "before":
            die()
        elif how == "within":  # the kernel kills what writes more into a file than this
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        else:
            threading.Timer(float(how), die).start()

    sys.addaudithook(hook)
    try:
        getattr(saformer.cli, command)()
    finally:
        Path("changes").write_text(str(next(changes)))
