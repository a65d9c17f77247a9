"""What a page says in numbers, however its sentences are worded."""

import re


def numbers(text: str) -> set[str]:
    """Every number of a text as it is written there, such as 0.92, 1,437 or 1e-3."""
    return set(re.findall(r"\d+(?:[.,]\d+)*(?:e-?\d+)?", text))
