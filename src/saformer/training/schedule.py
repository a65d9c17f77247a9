"""Learning-rate schedule: linear warm-up, then cosine or constant, as a function of epochs done.

It follows timm's CosineLRScheduler as the Spikformer family uses it. The cosine covers all epochs
and is not shifted by the warm-up, so the rate jumps slightly at the end of the warm-up.
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
    """Sets the learning rate of each group to its peak rate times a factor of the epochs done.

    It stores nothing in a checkpoint, because the settings and the epochs done determine the rate.

    Args:
        optimizer: Optimizer whose groups have their peak rates.
        factor: Function from epochs done to the share of the peak rate.
        done: Function that returns the epochs done so far.
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
        """Set the current rate; the trainer has already restored the number of epochs done."""
        self._last_lr = self.get_lr()
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate


def keep_settings(optimizer: Optimizer) -> None:
    """Let a checkpoint restore the moments of an optimizer, but not its settings.

    By default, torch also restores learning rate, decay and all other options of a group, so that
    changed settings of a resumed run would be ignored.
    """

    def keep(optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        groups = [
            saved | {name: value for name, value in current.items() if name != "params"}
            for saved, current in zip(
                state_dict["param_groups"], optimizer.param_groups, strict=True
            )
        ]
        return state_dict | {"param_groups": groups}

    optimizer.register_load_state_dict_pre_hook(keep)
