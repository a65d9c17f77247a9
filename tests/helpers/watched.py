"""What a process does to the world, as Python's audit hook tells it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STARTS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty"}
STARTS |= {"socket.connect", "socket.getaddrinfo", "pty.spawn", "webbrowser.open"}
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.chown", "os.link"}
CHANGES |= {"os.symlink", "os.truncate", "os.utime", "shutil.copyfile", "shutil.move"}
CHANGES |= {"shutil.rmtree"}
LISTS = {"os.listdir", "os.scandir", "glob.glob"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC

_told: list[tuple[str, tuple[Any, ...]]] | None = None
_hooked = False


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if _told is not None and (event in ("open", "import") or event in STARTS | CHANGES | LISTS):
        _told.append((event, args))


@contextmanager
def watched(allowed: list[Path], forbidden: Path) -> Iterator[list[str]]:
    """Collect what is done outside of `allowed`, or to `forbidden` in any way.

    A hook stays as long as the process; it listens in here alone. `git` may be asked for the
    commit, and what the compiler of Python keeps of a module may be written.
    """
    global _told, _hooked
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked = True
    packages = {name.partition(".")[0] for name in sys.modules}
    found: list[str] = []
    _told = []
    try:
        yield found
    finally:
        told, _told = _told, None
        for event, args in told:
            if why := _odd(event, args, allowed, forbidden, packages):
                found.append(f"{event}: {why}")


def _odd(
    event: str, args: tuple[Any, ...], allowed: list[Path], forbidden: Path, packages: set[str]
) -> str:
    """What is wrong with an event; nothing if it is none of a stranger's."""
    if event == "import":
        return "" if str(args[0]).partition(".")[0] in packages else str(args[0])
    if event in STARTS:
        command = args[1] if event == "subprocess.Popen" else args
        return "" if list(command)[:1] == ["git"] else str(command)
    paths = [_path(each) for each in args[:2] if isinstance(each, str | bytes | os.PathLike)]
    if event == "open":
        paths = paths[:1]
        writes = bool(isinstance(args[2], int) and args[2] & WRITES)
    else:
        writes = event in CHANGES
    for path in paths:
        if path == forbidden or forbidden in path.parents:
            return str(path)
        free = str(path) == os.devnull or path.suffix == ".pyc" or "__pycache__" in path.parts
        if writes and not free and not any(one in (path, *path.parents) for one in allowed):
            return str(path)
    return ""


def _path(value: Any) -> Path:
    return Path(os.path.abspath(os.path.realpath(os.fsdecode(value))))
