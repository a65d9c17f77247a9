"""Ranges of numbers in the settings: declared beside each field, and checked by one function.

    timesteps: int = field(metadata=at_least(1, most=10_000))

A number without a declared range must only be finite. Upper bounds are far above realistic values;
they catch typing errors that would use up the memory or start too many processes. This module
imports no torch, because the settings import none either.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from saformer.errors import require

TINY, HUGE = 1e-38, 1e38
"""Limits of float32: a smaller number would be computed as 0, a larger one as inf."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`.

    Args:
        low: Lower end.
        high: Upper end.
        above: Whether `low` itself is excluded.
        below: Whether `high` itself is excluded.
        whole: Whether a message names both ends, and not only the one that a number exceeds.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False
    whole: bool = False

    def broken(self, number: float) -> str | None:
        """The rule that a number breaks, for a message; None if the number is in the range."""
        if isinstance(number, float) and not math.isfinite(number):
            return "be finite"
        if abs(number) > HUGE or 0 < abs(number) < TINY:
            return f"be 0 or {TINY:g} to {HUGE:g} in size, which float32 can hold"
        too_low = number <= self.low if self.above else number < self.low
        too_high = number >= self.high if self.below else number > self.high
        if self.whole and (too_low or too_high):
            return self._ends()
        if too_low and self.low == 0:
            return "be positive" if self.above else "be 0 or more"
        if too_low:
            return f"be above {self.low}" if self.above else f"be at least {self.low}"
        if too_high:
            return f"be below {self.high}" if self.below else f"be at most {self.high}"
        return None

    def _ends(self) -> str:
        low, high = self.low, self.high
        if self.above:
            both = f"between {low} and {high}", f"above {low} and at most {high}"
            return f"be {both[0] if self.below else both[1]}"
        return f"be in [{low}, {high})" if self.below else f"be {low} to {high}"


Metadata = Mapping[str, Range]


def at_least(low: float, most: float = math.inf) -> Metadata:
    """Metadata of a field: `low` or more, and at most `most`."""
    return {"range": Range(low, most)}


def positive(most: float = math.inf) -> Metadata:
    """Metadata of a field: above 0, and at most `most`."""
    return {"range": Range(0, most, above=True)}


def within(low: float, high: float, above: bool = False, below: bool = False) -> Metadata:
    """Metadata of a field: between two ends; messages name both."""
    return {"range": Range(low, high, above, below, whole=True)}


def require_ranges(settings: Any, name: str = "") -> None:
    """Refuse numbers of a dataclass that are not finite or out of their range.

    Call it first in `__post_init__`, because later checks do not notice NaN: all comparisons with
    NaN are false.

    Args:
        settings: The dataclass. Dataclasses within it check themselves.
        name: Its dotted name, as the user types it.

    Raises:
        SettingError: A number is wrong; the message has its dotted name.
    """
    for field in fields(settings):
        bounds = field.metadata.get("range", Range())
        null = " or null" if field.default is None else ""
        _require(f"{name}.{field.name}", getattr(settings, field.name), bounds, null)


def require_finite(settings: Any) -> None:
    """Refuse numbers in plain settings that are not finite or that float32 cannot hold.

    Raises:
        SettingError: A number is not finite; the message has its dotted name.
    """
    _require("", settings, Range())


def _require(name: str, value: Any, bounds: Range, null: str = "") -> None:
    for where, shown, number in _numbers(name, value):
        rule = bounds.broken(number)
        require(rule is None, where.removeprefix("."), f"{rule}{null}", shown)


def _numbers(name: str, value: Any) -> Iterator[tuple[str, Any, float]]:
    """Yield the numbers in a value: dotted name, the value to show in a message, and the number."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(f"{name}.{key}", inner)
    elif isinstance(value, list):
        for inner in value:
            for where, _, number in _numbers(name, inner):
                yield where, value, number
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, value, value
