"""Correct BatchNorm's running statistics in the first steps of a training."""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

RECENT = 32


class FreshStatistics(Callback):
    """Makes running statistics fit the current network from the first batch on.

    PyTorch initialises them to mean 0 and variance 1. This start value has an effect for 60 to 90
    steps and keeps every neuron silent in evaluation. Also, PyTorch averages over 1/momentum steps,
    but at the start of a training the network changes much within ten steps. Here the n-th batch
    has the weight max(momentum, 32 / (n + 31)). So the first batch replaces the start value, the
    next batches are averaged in a window that grows with n, and later the weight is the configured
    momentum, as in PyTorch.

    The training does not change, because it normalises with each batch's own statistics. A layer
    that already has statistics, such as one of a pretrained or resumed network, does not change
    either. `momentum` itself keeps its value, because each new value would recompile the graph.
    """

    def __init__(self) -> None:
        super().__init__()
        self._batches = 0
        self._names: list[str] | None = None  # layers that started without statistics
        self._norms: list[_BatchNorm] = []
        self._kept: list[tuple[_BatchNorm, list[Tensor], Tensor]] = []

    def state_dict(self) -> dict[str, Any]:
        return {"batches": self._batches, "names": self._names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._batches, self._names = state_dict["batches"], state_dict["names"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._names is None:
            self._names = _without_statistics(pl_module)
        norms = [pl_module.get_submodule(name) for name in self._names]
        self._norms = [norm for norm in norms if isinstance(norm, _BatchNorm)]

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        weight = _weight(self._batches)
        self._norms = [norm for norm in self._norms if weight > (norm.momentum or 0.0)]
        self._kept = []
        for norm in self._norms:
            if not norm.training:  # it uses its statistics and does not update them
                continue
            statistics = [statistic.clone() for statistic in _statistics(norm)]
            self._kept.append((norm, statistics, _calls(norm).clone()))
            for statistic in _statistics(norm):
                statistic.zero_()  # so that afterwards it holds only the part of this batch

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        weight = _weight(self._batches)
        self._batches += 1
        for norm, before, calls_before in self._kept:
            assert norm.momentum is not None
            # For one batch, a layer may run several times (in a loop over time) or never.
            calls = _calls(norm) - calls_before
            share = 1 - (1 - norm.momentum) ** calls
            for old, statistic in zip(before, _statistics(norm), strict=True):
                of_batch = torch.where(calls > 0, statistic / share, old)
                statistic.copy_(torch.lerp(old, of_batch, weight))
        self._kept = []

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        for norm, before, _ in self._kept:
            for old, statistic in zip(before, _statistics(norm), strict=True):
                statistic.copy_(old)
        self._kept = []


def _weight(batches: int) -> float:
    """Weight of the next batch in the statistics, after `batches` earlier ones."""
    return RECENT / (batches + RECENT)


def _without_statistics(module: nn.Module) -> list[str]:
    """Names of the BatchNorms that have seen no batch."""
    norms = {
        name: norm
        for name, norm in module.named_modules()
        if isinstance(norm, _BatchNorm) and norm.momentum and norm.running_var is not None
    }
    if not norms:
        return []
    fresh = torch.stack(
        [
            # Also check the values: very old PyTorch weights have statistics but a count of 0.
            (_calls(norm) == 0) & (mean == 0).all() & (variance == 1).all()
            for norm in norms.values()
            for mean, variance in [_statistics(norm)]
        ]
    )
    return [name for name, yes in zip(norms, fresh.tolist(), strict=True) if yes]


def _statistics(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None and norm.running_var is not None
    return norm.running_mean, norm.running_var


def _calls(norm: _BatchNorm) -> Tensor:
    assert norm.num_batches_tracked is not None
    return norm.num_batches_tracked
