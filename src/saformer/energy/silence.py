"""Warnings about a network that hardly fires: its low energy and its accuracy mean nothing."""

from collections.abc import Mapping
from math import floor

DEAD = 0.95  # share of neurons that never fire; in a working network it is a few per cent


def silence(scalars: Mapping[str, float], same_logits: bool, split: str) -> list[str]:
    """Return one sentence for each sign that the network is dead; an empty list if there is none.

    Args:
        scalars: Metrics of the evaluation; `neurons/dead_frac` and `energy/n_samples` are used if
            the evaluation counted energy.
        same_logits: Whether all images of the evaluation got the same logits.
        split: Name of the split for people: test or validation.
    """
    words = []
    dead = scalars.get("neurons/dead_frac", 0.0)
    if dead >= DEAD:
        share = f"{floor(1000 * dead) / 10:g} % of neurons fired on"
        counted = f"none of {scalars['energy/n_samples']:.0f} validation images"
        words.append(f"{share} {'no test image' if split == 'test' else counted}")
    if same_logits:
        words.append(f"the logits are the same for every {split} image")
    return words
