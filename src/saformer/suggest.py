"""Suggest the nearest known name for a mistyped one."""

from collections.abc import Iterable
from difflib import get_close_matches


def suggest(typed: str, known: Iterable[str]) -> str:
    """Make the sentence " Did you mean 'x'?" for the nearest known name; empty if none is near.

    The last part of a dotted setting is enough: for `lr` it suggests `optimizer.lr`.
    """
    names = list(known)
    by_leaf = [name for name in names if name.rpartition(".")[2] == typed]
    nearest = by_leaf[:1] or get_close_matches(typed, names, n=1, cutoff=0.7)
    return f" Did you mean '{nearest[0]}'?" if nearest else ""
