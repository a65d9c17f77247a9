"""Figures take most of the time of a short run, so tests draw them where they are about them."""

from collections.abc import Sequence

DRAWING = ("train", "energy")


def undrawn(command: str, words: Sequence[str]) -> list[str]:
    """The words of a command, with `plots=false` where it draws and they do not say so."""
    draws = command in DRAWING and not any(word.startswith("plots=") for word in words)
    # First, because a flag may be the end of what is typed.
    return ["plots=false", *words] if draws else [*words]
