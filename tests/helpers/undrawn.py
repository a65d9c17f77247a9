"""Figures take most of the time of a short run, so tests draw them where they are about them."""

from collections.abc import Sequence

DRAWING = ("train", "energy")


def undrawn(command: str, words: Sequence[str]) -> list[str]:
    """The words of a command, with `plots=false` where it draws and they do not say so."""
    draws = command in DRAWING and not any(word.startswith("plots=") for word in words)
    if not draws:
        return [*words]
    # Before flags, which may end what is typed; behind the name of a checkpoint, which comes first.
    named = 1 if words and "=" not in words[0] and not words[0].startswith(("-", "~")) else 0
    return [*words[:named], "plots=false", *words[named:]]
