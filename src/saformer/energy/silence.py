"""Words about a network that says nothing: no energy is too low for it, and no accuracy."""

from collections.abc import Mapping
from math import floor

DEAD = 0.95  # share of neurons; a network that works has few per cent of them


def silence(scalars: Mapping[str, float], same_logits: bool, split: str) -> list[str]:
    """What is wrong with a network, a sentence each; nothing if it is well.

    Args:
        scalars: Of the evaluation: `neurons/dead_frac` and `energy/n_samples` where it was counted.
        same_logits: Whether logits were the same for all of its images.
        split: Of the images, as people call it: test or validation.
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
