"""Learning-rate schedule: linear warm-up, then cosine or constant, by epochs done.

Source: timm's CosineLRScheduler as the Spikformer family uses it: the cosine is over all epochs and
is not shifted by the warm-up, so the rate jumps slightly where the warm-up ends.
"""

import math
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from saformer.config.schema import ScheduleName, SchedulerConfig


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


class EpochSchedule(LRScheduler):
    """Sets the learning rate of each group to its own times a factor of the epochs done.

    It keeps nothing in a checkpoint: what was typed and how far the training is say all.

    Args:
        optimizer: Its groups have their peak rates.
        factor: From epochs done to the share of the peak rate.
        done: Epochs done, as of now.
    """

    def __init__(
        self, optimizer: Optimizer, factor: Callable[[float], float], done: Callable[[], float]
    ) -> None:
        self._factor, self._done = factor, done
        super().__init__(optimizer)

    def get_lr(self) -> list[Any]:
        factor = self._factor(self._done())
        return [peak * factor for peak in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Set the rate of this moment; the loops of the trainer are there already."""
        self._last_lr = self.get_lr()
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate


def keep_settings(optimizer: Optimizer) -> None:
    """Let a checkpoint bring back what an optimizer has learned, and none of its settings.

    torch takes learning rate, decay and all other options of a group from the checkpoint.
    """

    def typed(optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        groups = [
            saved | {name: value for name, value in own.items() if name != "params"}
            for saved, own in zip(state_dict["param_groups"], optimizer.param_groups, strict=True)
        ]
        return state_dict | {"param_groups": groups}

    optimizer.register_load_state_dict_pre_hook(typed)
