"""Learning-rate schedule: linear warm-up, then cosine or constant.

Source: timm's CosineLRScheduler as the Spikformer family uses it: the cosine is over all epochs and
is not shifted by the warm-up, so the rate jumps slightly where the warm-up ends.
"""

import math

from saformer.config import ScheduleName, SchedulerConfig


def lr_at(epoch: float, lr: float, epochs: int, config: SchedulerConfig) -> float:
    """Learning rate at a point in time.

    Args:
        epoch: Epochs done so far; fractional when the rate changes every step.
        lr: Peak learning rate.
        epochs: Epochs of the whole training.
        config: Warm-up, end value and shape.
    """
    if epoch < config.warmup_epochs:
        return config.warmup_lr + epoch * (lr - config.warmup_lr) / config.warmup_epochs
    if config.name is ScheduleName.constant:
        return lr
    progress = min(epoch / (epochs - config.cooldown_epochs), 1.0)
    return config.min_lr + 0.5 * (lr - config.min_lr) * (1 + math.cos(math.pi * progress))
