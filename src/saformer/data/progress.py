"""A progress bar for work on many files; a terminal shows it until the end, a log file never."""

from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Item = TypeVar("Item")


def progress(items: Iterable[Item], what: str, total: int | None = None) -> Iterable[Item]:
    """Yield the items and show how many are done.

    Args:
        items: What the caller works on.
        what: The work, in two or three words.
        total: Number of items; None takes the length of `items`.
    """
    console = Console()
    off = not console.is_terminal  # a bar would leave blank lines in a log file
    return track(items, what, total=total, console=console, transient=True, disable=off)
