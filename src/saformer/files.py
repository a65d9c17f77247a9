"""Files of results, which are whole whatever stops their writer."""

import json
import os
from itertools import count
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON with `write_whole`."""
    write_whole(path, json.dumps(value, indent=2) + "\n")


def write_whole(path: Path, content: str | memoryview, replaced: Path | None = None) -> None:
    """Write a file so that a reader sees the old one or the new one, never half of it.

    This holds whatever stops the writer: a kill, a full disk, a loss of power.

    Args:
        path: The file.
        content: What it holds from now on.
        replaced: Where the old file goes; None drops it.

    Raises:
        OSError: It cannot be written; the old file is still there.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
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
        others = (path.with_stem(f"{path.stem}-{number}") for number in count(1))
        path.rename(next(other for other in others if not other.exists()))
