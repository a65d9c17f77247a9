"""Parse RandAugment's settings from timm's string format; this module imports no torch."""

import re
from dataclasses import dataclass

from saformer.errors import SettingError

TO_10 = r"10(?:\.0+)?|\d(?:\.\d+)?"
TO_1 = r"1(?:\.0+)?|0(?:\.\d+)?"
FORM = re.compile(
    rf"rand(?:-m(?P<m>{TO_10})|-n(?P<n>[1-9])|-mstd(?P<mstd>{TO_10})"
    rf"|-p(?P<p>{TO_1})|-inc(?P<inc>[01]))*"
)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """RandAugment: `n` operations at magnitude `m`; the defaults are timm's."""

    m: float = 10.0
    """Magnitude, 0..10."""
    n: int = 2
    """Operations per image, drawn with replacement."""
    mstd: float = 0.0
    """Standard deviation of the magnitude."""
    p: float = 0.5
    """Probability that a drawn operation is applied."""
    inc: bool = False
    """Whether every operation gets stronger with the magnitude; without it some of timm's get
    weaker."""


def parse_policy(text: str) -> Policy:
    """Read a string such as rand-m9-n1-mstd0.5-inc1.

    Raises:
        SettingError: The string does not have that form, or a number is out of range.
    """
    match = FORM.fullmatch(text)
    if match is None:
        raise SettingError(
            "augment.randaugment must be rand with any of m (0 to 10), n (1 to 9), mstd (0 to 10), "
            f"p (0 to 1) and inc (0 or 1), such as rand-m9-n1-mstd0.5-inc1, not {text}"
        )
    numbers = {name: float(value) for name, value in match.groupdict().items() if value}
    n, inc = int(numbers.pop("n", Policy.n)), bool(numbers.pop("inc", Policy.inc))
    return Policy(n=n, inc=inc, **numbers)
