"""Stop a training before an infinite or NaN value reaches the weights."""

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from saformer.checkpoint import trained_values
from saformer.errors import TrainingStopped
from saformer.finite import nonfinite, shortened
from saformer.training.diagnose import first_nonfinite


class FiniteModule(pl.LightningModule):
    """A LightningModule with a `backbone` whose losses, gradients and weights must be finite."""

    backbone: nn.Module

    def __init__(self) -> None:
        super().__init__()
        self._unchecked: list[tuple[Tensor, Tensor]] = []
        """Losses since the last step of the optimizer, each with its batch."""

    def watch(self, loss: Tensor, x: Tensor) -> None:
        """Remember a loss and its batch, which are checked before the next optimizer step."""
        self._unchecked.append((loss.detach(), x))

    def require_finite_batch(self, loss: Tensor, x: Tensor) -> None:
        """Check a loss and its batch immediately.

        Raises:
            TrainingStopped: One of them is not finite.
        """
        if not torch.isfinite(loss) & torch.isfinite(x).all():
            raise TrainingStopped(self._what_went_wrong([(loss, x)]))

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Stop all ranks together before a bad step reaches the weights.

        If a membrane is NaN, the loss can still be finite, because a neuron outputs only spikes;
        then only the gradients show the problem. A check before the backward pass would make the
        CPU wait there for the GPU.
        """
        unchecked, self._unchecked = self._unchecked, []
        finite = [torch.isfinite(part).all() for pair in unchecked for part in pair]
        norm = get_total_norm([p.grad for p in self.parameters() if p.grad is not None])
        fine = torch.stack([torch.stack(finite).all(), torch.isfinite(norm)])
        if self.trainer.world_size > 1:
            fine = self.trainer.strategy.reduce(fine.int(), reduce_op="min")
        forward, backward = fine.tolist()  # the CPU waits here for the GPU, once per step
        if not (forward and (backward or self._scaler_skips())):
            found = self._first_said(self._what_went_wrong(unchecked))
            raise TrainingStopped(found or self._bad_gradient())

    def _scaler_skips(self) -> bool:
        """Whether a loss scale that is too high can explain gradients that are not finite."""
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        return scaler is not None and scaler.get_scale() >= 1

    def on_test_start(self) -> None:
        self.require_finite(self.state_dict())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.require_finite(trained_values(checkpoint))

    def require_finite(self, values: Mapping[str, Tensor]) -> None:
        """Stop all ranks together if a weight, a statistic or a moment is not finite."""
        bad = nonfinite(values)
        fine = torch.tensor(not bad, dtype=torch.int, device=self.device)
        if self.trainer.world_size > 1:
            fine = self.trainer.strategy.reduce(fine, reduce_op="min")
        if not fine:
            words = f"{shortened(bad)} became infinite or NaN" if bad else ""
            raise TrainingStopped(self._in_words(self._first_said(words)))

    def _what_went_wrong(self, batches: list[tuple[Tensor, Tensor]]) -> str:
        """Message on which value of these batches is not finite; empty if all are finite."""
        for loss, x in batches:
            with self.trainer.precision_plugin.forward_context():  # the same precision as the step
                where = first_nonfinite(self.backbone, x)
            if not torch.isfinite(loss):
                where = where or "every layer is finite, so the loss itself overflowed"
                return self._in_words(where, f"the loss became {loss.item()}")
            if where:
                return self._in_words(where)
        return ""

    def _bad_gradient(self) -> str:
        """Message on the first gradient that is not finite; gradients are computed from the end.

        All ranks have the same gradients, so they give the same message.
        """
        for name, parameter in reversed(list(self.named_parameters())):
            if parameter.grad is not None and not torch.isfinite(norm := parameter.grad.norm()):
                where = f"from {name} backwards, though the loss is finite"
                return self._in_words(where, f"the gradient became {norm.item()}")
        return self._in_words("the norm of all gradients overflowed")

    def _in_words(self, where: str, what: str = "") -> str:
        """Message on what became infinite or NaN, when, where it began, and what may help."""
        if self.trainer.testing:
            return f"{what or 'the test stopped'}: {where}"
        return (
            f"{what or 'training stopped'} in epoch {self.current_epoch + 1}, "
            f"step {self.global_step}: {where}. "
            "The last good checkpoint is kept; a lower optimizer.lr, trainer.gradient_clip_val=1 "
            "or trainer.precision=32-true may help."
        )

    def _first_said(self, words: str) -> str:
        """The message of the first rank that has one; all ranks must call this."""
        ranks = range(self.trainer.world_size)
        said = [self.trainer.strategy.broadcast(words, rank) for rank in ranks]
        return next(filter(None, said), "")
