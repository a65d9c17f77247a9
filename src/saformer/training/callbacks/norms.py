"""BatchNorm's running statistics in the first steps of a training."""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

RECENT = 32


class FreshStatistics(Callback):
    """Running statistics that are of the network as it is, from the first batch on.

    PyTorch starts them at mean 0 and variance 1, which is left in them for 60 to 90 steps and
    keeps every neuron silent in evaluation, and averages over 1/momentum steps, too many for a
    network that is another one ten steps later. Here the n-th batch counts with
    max(momentum, 32 / (n + 31)): the first replaces what was there, those that follow count in a
    window that grows with n, and from then on it is the configured momentum, as in PyTorch.

    Training does not change, since it normalises by each batch's own statistics, and neither does
    a layer that brings statistics, as of a pretrained or resumed network. `momentum` itself stays
    as it is, because each other value would be another graph to compile.
    """

    def __init__(self) -> None:
        super().__init__()
        self._batches = 0
        self._names: list[str] | None = None  # of the layers that began without statistics
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
            if not norm.training:  # it normalises by what it has
                continue
            statistics = [one.clone() for one in _statistics(norm)]
            self._kept.append((norm, statistics, _calls(norm).clone()))
            for one in _statistics(norm):
                one.zero_()  # so that what the batch adds can be told from what was there

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
            # A layer may be called several times for a batch, in a loop over time; or never.
            calls = _calls(norm) - calls_before
            share = 1 - (1 - norm.momentum) ** calls
            for kept, one in zip(before, _statistics(norm), strict=True):
                of_batch = torch.where(calls > 0, one / share, kept)
                one.copy_(torch.lerp(kept, of_batch, weight))
        self._kept = []

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        for norm, before, _ in self._kept:
            for kept, one in zip(before, _statistics(norm), strict=True):
                one.copy_(kept)
        self._kept = []


def _weight(batches: int) -> float:
    """What a batch counts, after so many others."""
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
            # Weights from before PyTorch counted batches come with a count of 0.
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
