"""Write files that are complete even after a crash, and find names that do not exist yet."""

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
    """Write a value as JSON into a new file; this is safe if several processes do it at once.

    Args:
        path: The file without its suffix; a number is appended if such a file exists.
        value: Content of the file.

    Returns:
        Path of the file.

    Raises:
        OSError: The file cannot be written; no partial file remains.
    """
    content, names = _json(value), numbered(path, ".json")
    while True:
        new = next(names)
        part = _part(new)
        try:
            part.touch(exist_ok=False)  # the process that creates the part file owns the name
        except FileExistsError:
            continue
        if not new.exists():
            write_whole(new, content)
            return new
        part.unlink()


def new_folder(path: Path) -> Path:
    """Create a new folder of this name; a number is appended if the name exists.

    Raises:
        OSError: The folder cannot be created.
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
    """Append the current time in seconds to the name of a path."""
    return path.with_name(f"{path.name}-{datetime.now():%Y-%m-%d_%H-%M-%S}")


def numbered(path: Path, ending: str = "") -> Iterator[Path]:
    """Yield a path with a suffix, then the same path with -1, -2, ... before the suffix."""
    yield path.with_name(path.name + ending)
    yield from (path.with_name(f"{path.name}-{number}{ending}") for number in count(1))


def write_whole(
    path: Path,
    content: str | memoryview,
    replaced: Path | None = None,
    mode: int | None = None,
) -> None:
    """Write a file so that a reader sees the complete old file or the complete new one.

    This is true even after a kill, with a full disk, or after a power failure.

    Args:
        path: The file.
        content: New content of the file.
        replaced: New path of the old file; None deletes the old file.
        mode: Permissions of the file; None uses the defaults of the system.

    Raises:
        OSError: The file cannot be written; the old file is unchanged.
    """
    part = _part(path)
    try:
        with part.open("wb") as file:
            if mode is not None:
                part.chmod(mode)
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())  # otherwise the new name may be on the disk before the content
    except OSError as error:
        part.unlink(missing_ok=True)  # free the space, because the disk may be full
        error.filename = error.filename or str(path)
        raise
    if replaced is not None and path.exists():
        path.replace(replaced)
    part.replace(path)


def set_aside(path: Path) -> None:
    """Rename a file that would be overwritten, such as to results-1.json, unless it is empty."""
    if path.exists() and path.stat().st_size:
        others = numbered(path.with_suffix(""), path.suffix)
        path.rename(next(other for other in others if not other.exists()))


def _json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"


def _part(path: Path) -> Path:
    """The name of a file while it is being written."""
    return path.with_name(path.name + ".part")
