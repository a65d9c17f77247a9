"""Allow only one process at a time to use a folder.

The lock is a `flock` on the file `.lock` in the folder. The kernel releases it when the process
ends, for any reason, and a file server releases it when the machine dies. So a dead process never
blocks a folder. The text in the file is only for people.

We do not use the package filelock for three reasons: its older versions empty the file on every
try; its newer ones use the mere existence of a file as the lock where there is no flock, and this
file remains after a kill; and no version can pass a lock to a child process.
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
INHERITED = "SAFORMER_LOCK"  # tells a child process which descriptor holds its parent's lock
PATIENCE = 0.2  # seconds to retry, because `holder` locks the file for a moment
LEASE = 180.0  # seconds after which a file server has released the lock of a dead machine

_held: set[int] = set()


def _let_go() -> None:
    """Close inherited locks after a fork, because a data worker may outlive its parent process."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


@contextmanager
def held(folder: Path, name: str = NAME) -> Iterator[None]:
    """Lock a folder; if the file system has no locks, warn and continue without one.

    Args:
        folder: The folder.
        name: Name of the lock file; another name is another lock.

    Raises:
        InUseError: Another process holds the lock. Nothing was changed.
        OSError: The file cannot be created.
    """
    if INHERITED in os.environ:  # keep it until this process ends; the parent removes the file
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
    """What a child process needs to share this lock, which is then held until both have ended.

    Returns:
        The file descriptors to pass to the child, and its environment.
    """
    descriptor = next(iter(_held), None)
    if descriptor is None:  # the file system has no locks
        return (), dict(os.environ)
    return (descriptor,), os.environ | {INHERITED: str(descriptor)}


def holder(folder: Path, name: str = NAME) -> str | None:
    """Description of the process that holds a folder; None if there is none, or if unknown."""
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
    """Take the lock and return its descriptor; None if the file system has no locks."""
    shown, begin = os.path.relpath(path.parent), time.monotonic()
    patience = PATIENCE
    while True:
        made = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            free = _locked(descriptor)
        except OSError as error:
            os.close(descriptor)
            if made:  # we created it; otherwise it may be the lock of a machine that has locks
                path.unlink(missing_ok=True)
            why = error.strerror
            log.warning("%s cannot be locked (%s): start no other run in it", shown, why)
            return None
        if free and _is_named(path, descriptor):  # the previous holder may have removed the file
            _sign(descriptor)
            return descriptor
        who = _signature(descriptor)
        os.close(descriptor)
        if not free and "SLURM_RESTART_COUNT" in os.environ and patience < LEASE:
            patience = LEASE  # after a requeue, the lock of the job's own dead process may remain
            log.warning("%s is in use by %s: waiting up to %.0f s for its end", shown, who, LEASE)
        if not free and time.monotonic() > begin + patience:
            raise InUseError(
                f"{shown} is in use by {who}: wait for its end, or choose another folder with "
                "hydra.run.dir=..., of a sweep with hydra.sweep.dir=..."
            )
        time.sleep(PATIENCE / 10)


def _locked(descriptor: int, shared: bool = False) -> bool:
    """Try to lock an open file; return whether it worked.

    Raises:
        OSError: The file system or the operating system has no locks.
    """
    if sys.platform == "win32":
        raise OSError(errno.ENOSYS, "no flock on Windows")
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):  # EACCES on systems that emulate flock
            return False
        raise
    return True


def _is_named(path: Path, descriptor: int) -> bool:
    """Whether an open file is still the file at this path."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _sign(descriptor: int) -> None:
    """Write a description of this process into the lock file; a full disk is no error."""
    now = f"{datetime.now():%Y-%m-%d %H:%M:%S}"
    words = f"process {os.getpid()} on {platform.node()} since {now}".encode()
    with suppress(OSError):
        os.pwrite(descriptor, words, 0)
        os.ftruncate(descriptor, len(words))  # an earlier process may have left a longer text


def _signature(descriptor: int) -> str:
    try:
        return os.pread(descriptor, 1000, 0).decode(errors="replace") or "another process"
    except OSError:  # on some systems a locked file cannot be read
        return "another process"
