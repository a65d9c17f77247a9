"""What a number of the settings may be: declared beside its field, and held by one check.

    timesteps: int = field(metadata=at_least(1, most=10_000))

A number without a declared range is finite, no more. Upper bounds lie far above anything real:
they are there for what a slip of the finger would turn into memory or processes. Imports no torch:
the settings do not either.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from saformer.errors import require

TINY, HUGE = 1e-38, 1e38
"""Sizes that float32 can hold: what computes knows a smaller number as 0, a larger one as inf."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`.

    Args:
        low: The lowest.
        high: The highest.
        above: `low` itself is not among them.
        below: `high` itself is not among them.
        whole: Both ends are told, and not only the one that a number is beyond.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False
    whole: bool = False

    def broken(self, number: float) -> str | None:
        """The rule that a number breaks, in words; None for one that is among them."""
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
    """Metadata of a field: `low` or more, and no more than anybody can mean."""
    return {"range": Range(low, most)}


def positive(most: float = math.inf) -> Metadata:
    """Metadata of a field: above 0, and no more than anybody can mean."""
    return {"range": Range(0, most, above=True)}


def within(low: float, high: float, above: bool = False, below: bool = False) -> Metadata:
    """Metadata of a field: between two ends that both belong to what the number is."""
    return {"range": Range(low, high, above, below, whole=True)}


def require_ranges(settings: Any, name: str = "") -> None:
    """Refuse numbers of a dataclass that are not finite or out of their range.

    To be called first in its `__post_init__`: comparisons with NaN are false, whatever they say.

    Args:
        settings: The dataclass. Those within it check themselves.
        name: Its dotted name, as it is typed.

    Raises:
        SettingError: A number is wrong; the message has its dotted name.
    """
    for one in fields(settings):
        bounds = one.metadata.get("range", Range())
        null = " or null" if one.default is None else ""
        _require(f"{name}.{one.name}", getattr(settings, one.name), bounds, null)


def require_finite(settings: Any) -> None:
    """Refuse numbers in plain settings that no float can hold.

    Raises:
        SettingError: A number is not finite; the message has its dotted name.
    """
    _require("", settings, Range())


def _require(name: str, value: Any, bounds: Range, null: str = "") -> None:
    for where, shown, number in _numbers(name, value):
        rule = bounds.broken(number)
        require(rule is None, where.removeprefix("."), f"{rule}{null}", shown)


def _numbers(name: str, value: Any) -> Iterator[tuple[str, Any, float]]:
    """Numbers in a value: their dotted names, what is shown of each, and the number itself."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _numbers(f"{name}.{key}", each)
    elif isinstance(value, list):
        for each in value:
            for where, _, number in _numbers(name, each):
                yield where, value, number
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, value, value
