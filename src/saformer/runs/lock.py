"""One process at a time in a folder.

The lock is a `flock` on the file `.lock` there. The kernel drops it with the process that holds it,
whatever ended that, and a file server with its machine: what the dead leave stands in nobody's way.
What the file says is for people.

filelock is not used, because its older versions empty the file on every try, its newer ones take a
file for a lock where there is no flock, which a kill leaves behind, and none gives a lock to a
child.
"""

import errno
import logging
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from saformer.errors import InUseError

if sys.platform != "win32":
    import fcntl

log = logging.getLogger(__name__)

NAME = ".lock"
INHERITED = "SAFORMER_LOCK"  # tells a child which of its descriptors holds the lock of its parent
PATIENCE = 0.2  # seconds: who only looks holds the lock for a moment
LEASE = 180.0  # seconds after which a file server has dropped the lock of a machine that died

_held: set[int] = set()


def _let_go() -> None:
    """Close what a fork brings: a worker of a loader may live longer than the process it is of."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


@contextmanager
def held(folder: Path, name: str = NAME) -> Iterator[None]:
    """Hold a folder; where the file system has no locks, say so and go on.

    Args:
        folder: The folder.
        name: Of the file in it; another one is another lock.

    Raises:
        InUseError: Another process holds it. Nothing was changed.
        OSError: The file cannot be made.
    """
    if INHERITED in os.environ:  # until this process ends, and the parent removes the file
        _held.add(int(os.environ.pop(INHERITED)))
        yield
        return
    path = folder / name
    descriptor = _take(path)
    if descriptor is None:
        yield
        return
    _held.add(descriptor)
    try:
        yield
    finally:
        _held.discard(descriptor)
        with suppress(OSError):
            if _is_named(path, descriptor):
                path.unlink()
        os.close(descriptor)


def handed_on() -> tuple[tuple[int, ...], dict[str, str]]:
    """What gives a child the lock that this process holds, so that it lasts as long as either.

    Returns:
        The descriptors to pass to it, and its environment.
    """
    own = next(iter(_held), None)
    if own is None:  # where there are no locks
        return (), dict(os.environ)
    return (own,), os.environ | {INHERITED: str(own)}


def holder(folder: Path, name: str = NAME) -> str | None:
    """Who holds a folder, in words; None if nobody does, or that cannot be known."""
    try:
        descriptor = os.open(folder / name, os.O_RDONLY)
    except OSError:
        return None
    try:
        return None if _locked(descriptor, shared=True) else _signature(descriptor)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _take(path: Path) -> int | None:
    """A descriptor that holds the lock; None where there are no locks."""
    shown, begin = os.path.relpath(path.parent), time.monotonic()
    patience = PATIENCE
    while True:
        made = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            free = _locked(descriptor)
        except OSError as error:
            os.close(descriptor)
            if made:  # and not by somebody whose system has locks
                path.unlink(missing_ok=True)
            why = error.strerror
            log.warning("%s cannot be locked (%s): start nothing else in it", shown, why)
            return None
        if free and _is_named(path, descriptor):  # else who held it removed the file meanwhile
            _sign(descriptor)
            return descriptor
        who = _signature(descriptor)
        os.close(descriptor)
        if not free and "SLURM_RESTART_COUNT" in os.environ and patience < LEASE:
            patience = LEASE  # a job that starts again may meet the lock of its dead self
            log.warning("%s is in use by %s: waiting up to %.0f s for its end", shown, who, LEASE)
        if not free and time.monotonic() > begin + patience:
            raise InUseError(
                f"{shown} is in use by {who}: wait for its end, or choose another folder with "
                "hydra.run.dir=..., of a sweep with hydra.sweep.dir=..."
            )
        time.sleep(PATIENCE / 10)


def _locked(descriptor: int, shared: bool = False) -> bool:
    """Whether an open file could be locked.

    Raises:
        OSError: There are no locks on its file system, or on this one.
    """
    if sys.platform == "win32":
        raise OSError(errno.ENOSYS, "no flock on Windows")
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):  # the latter where flock is emulated
            return False
        raise
    return True


def _is_named(path: Path, descriptor: int) -> bool:
    """Whether an open file is the one of that name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _sign(descriptor: int) -> None:
    """Write into a file who holds it; a full disk keeps nobody from holding it."""
    now = f"{datetime.now():%Y-%m-%d %H:%M:%S}"
    words = f"process {os.getpid()} on {platform.node()} since {now}".encode()
    with suppress(OSError):
        os.pwrite(descriptor, words, 0)
        os.ftruncate(descriptor, len(words))  # one that was killed may have left more


def _signature(descriptor: int) -> str:
    try:
        return os.pread(descriptor, 1000, 0).decode(errors="replace") or "another process"
    except OSError:  # where a lock keeps readers out
        return "another process"
