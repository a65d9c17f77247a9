"""The global generators of Python, NumPy and torch, which layers and callbacks draw from.

They begin anew from a key of numbers and words: whoever draws behind the same key draws the same,
whatever was drawn before.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def begin(*key: int | str) -> None:
    """Begin all of them anew.

    Args:
        key: What the numbers depend on: numbers of 0 or more, and words.
    """
    numbers = [int.from_bytes(k.encode(), "big") if isinstance(k, str) else k for k in key]
    mixed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    random.seed(mixed)
    np.random.seed(mixed)
    torch.manual_seed(mixed)  # of all devices


@contextmanager
def apart(*key: int | str) -> Iterator[None]:
    """Put them back at the end to where they were.

    Args:
        key: As of `begin`, for what is drawn inside; without one they just go on.
    """
    before: list[tuple[Callable[[Any], None], Any]] = [
        (random.setstate, random.getstate()),
        (np.random.set_state, np.random.get_state()),
        (torch.set_rng_state, torch.get_rng_state()),
    ]
    if torch.cuda.is_initialized():  # to ask would initialise it
        before.append((torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all()))
    if torch.backends.mps.is_available():
        before.append((torch.mps.set_rng_state, torch.mps.get_rng_state()))
    try:
        if key:
            begin(*key)
        yield
    finally:
        for put_back, state in before:
            put_back(state)
