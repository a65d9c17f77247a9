"""Files of results, which are whole whatever stops their writer, and names that nothing has."""

import json
import os
from collections.abc import Iterator
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON with `write_whole`."""
    write_whole(path, _json(value))


def write_new_json(path: Path, value: Any) -> Path:
    """Write a value as JSON into a new file, whoever else is writing beside it.

    Args:
        path: The file without its ending; a number is put behind it where there is one.
        value: What it holds.

    Returns:
        The file.

    Raises:
        OSError: It cannot be written; nothing is left of it.
    """
    content, names = _json(value), numbered(path, ".json")
    while True:
        new = next(names)
        part = _part(new)
        try:
            part.touch(exist_ok=False)  # who has the part has the name
        except FileExistsError:
            continue
        if not new.exists():
            write_whole(new, content)
            return new
        part.unlink()


def new_folder(path: Path) -> Path:
    """Make a new folder of this name, or with a number behind it where it is taken.

    Raises:
        OSError: It cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    names = numbered(path)
    while True:
        new = next(names)
        try:
            new.mkdir()
        except FileExistsError:
            continue
        return new


def with_time(path: Path) -> Path:
    """A path with the time behind its name; two of a second are the same."""
    return path.with_name(f"{path.name}-{datetime.now():%Y-%m-%d_%H-%M-%S}")


def numbered(path: Path, ending: str = "") -> Iterator[Path]:
    """A path, and the same with -1, -2, ... behind its name, each with an ending."""
    yield path.with_name(path.name + ending)
    yield from (path.with_name(f"{path.name}-{number}{ending}") for number in count(1))


def write_whole(
    path: Path,
    content: str | memoryview,
    replaced: Path | None = None,
    mode: int | None = None,
) -> None:
    """Write a file so that a reader sees the old one or the new one, never half of it.

    This holds whatever stops the writer: a kill, a full disk, a loss of power.

    Args:
        path: The file.
        content: What it holds from now on.
        replaced: Where the old file goes; None drops it.
        mode: Who may read and write it; None leaves that to the system.

    Raises:
        OSError: It cannot be written; the old file is still there.
    """
    part = _part(path)
    try:
        with part.open("wb") as file:
            if mode is not None:
                part.chmod(mode)
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())  # or the name may reach the disk before what it names
    except OSError as error:
        part.unlink(missing_ok=True)  # it may be what fills the disk
        error.filename = error.filename or str(path)
        raise
    if replaced is not None and path.exists():
        path.replace(replaced)
    part.replace(path)


def set_aside(path: Path) -> None:
    """Rename a file that would be written over: results-1.json; one that is empty is not kept."""
    if path.exists() and path.stat().st_size:
        others = numbered(path.with_suffix(""), path.suffix)
        path.rename(next(other for other in others if not other.exists()))


def _json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"


def _part(path: Path) -> Path:
    """What a file is called until it is whole."""
    return path.with_name(path.name + ".part")
