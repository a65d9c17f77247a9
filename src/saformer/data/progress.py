"""Progress of work on many files: a bar on a terminal, gone at the end, and nothing in a log."""

from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Item = TypeVar("Item")


def progress(items: Iterable[Item], what: str, total: int | None = None) -> Iterable[Item]:
    """Go through items and show how far.

    Args:
        items: What is worked on.
        what: The work, in two or three words.
        total: How many there are; None asks `items`.
    """
    console = Console()
    off = not console.is_terminal  # else blank lines are left in a log
    return track(items, what, total=total, console=console, transient=True, disable=off)
