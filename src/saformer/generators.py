"""Seed and restore the global random generators of Python, NumPy and torch.

Layers and callbacks draw from these generators. They are seeded from a key of numbers and words:
with the same key, the same numbers are drawn, independent of earlier draws.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def begin(*key: int | str) -> None:
    """Seed all generators.

    Args:
        key: Seed as numbers of 0 or more, and words.
    """
    numbers = [int.from_bytes(k.encode(), "big") if isinstance(k, str) else k for k in key]
    mixed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    random.seed(mixed)
    np.random.seed(mixed)
    torch.manual_seed(mixed)  # of all devices


@contextmanager
def apart(*key: int | str) -> Iterator[None]:
    """Context that restores the states of all generators at its end.

    Args:
        key: Seed inside the context, see `begin`; without a key, the generators are not seeded.
    """
    before: list[tuple[Callable[[Any], None], Any]] = [
        (random.setstate, random.getstate()),
        (np.random.set_state, np.random.get_state()),
        (torch.set_rng_state, torch.get_rng_state()),
    ]
    if torch.cuda.is_initialized():  # otherwise the call below would initialise CUDA
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
