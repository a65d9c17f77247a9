"""Parameters of which the everyday tests take a few, and the slow tests the others."""

from collections.abc import Iterable
from typing import Any

import pytest


def mostly_slow(values: Iterable[Any], every: int = 4, names: int = 1) -> list[Any]:
    """Mark all but the first of every `every` values slow.

    Args:
        values: Values of a parameter, or of several in a tuple.
        every: How many values stand for one that is tested every day.
        names: Number of parameters.
    """
    return [
        pytest.param(
            *(value if names > 1 else (value,)), marks=[pytest.mark.slow] if i % every else []
        )
        for i, value in enumerate(values)
    ]
