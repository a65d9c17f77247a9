"""The guard of a training: it stops before a value that is infinite or NaN becomes a weight."""

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
        """Losses since the last step of the optimizer, and the batches that they are of."""

    def watch(self, loss: Tensor, x: Tensor) -> None:
        """Have a loss and its batch checked before the next step of the optimizer."""
        self._unchecked.append((loss.detach(), x))

    def require_finite_batch(self, loss: Tensor, x: Tensor) -> None:
        """Check a loss and its batch at once.

        Raises:
            TrainingStopped: One of them is not finite.
        """
        if not torch.isfinite(loss) & torch.isfinite(x).all():
            raise TrainingStopped(self._what_went_wrong([(loss, x)]))

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Stop before a bad step reaches the weights, in all ranks together.

        Behind a neuron the loss stays finite whatever the membrane is, and only gradients tell. To
        look at anything before the backward pass would make the CPU wait there for the GPU.
        """
        unchecked, self._unchecked = self._unchecked, []
        finite = [torch.isfinite(part).all() for each in unchecked for part in each]
        norm = get_total_norm([p.grad for p in self.parameters() if p.grad is not None])
        fine = torch.stack([torch.stack(finite).all(), torch.isfinite(norm)])
        if self.trainer.world_size > 1:
            fine = self.trainer.strategy.reduce(fine.int(), reduce_op="min")
        forward, backward = fine.tolist()  # here the CPU waits, once a step
        if not (forward and (backward or self._scaler_skips())):
            found = self._first_said(self._what_went_wrong(unchecked))
            raise TrainingStopped(found or self._bad_gradient())

    def _scaler_skips(self) -> bool:
        """Whether a loss scale that is too high explains gradients that are not finite."""
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        return scaler is not None and scaler.get_scale() >= 1

    def on_test_start(self) -> None:
        self.require_finite(self.state_dict())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.require_finite(trained_values(checkpoint))

    def require_finite(self, values: Mapping[str, Tensor]) -> None:
        """Stop in all ranks together where a weight, a statistic or a moment is not finite."""
        bad = nonfinite(values)
        fine = torch.tensor(not bad, dtype=torch.int, device=self.device)
        if self.trainer.world_size > 1:
            fine = self.trainer.strategy.reduce(fine, reduce_op="min")
        if not fine:
            words = f"{shortened(bad)} became infinite or NaN" if bad else ""
            raise TrainingStopped(self._in_words(self._first_said(words)))

    def _what_went_wrong(self, batches: list[tuple[Tensor, Tensor]]) -> str:
        """What these batches show of why something became infinite or NaN; or nothing."""
        for loss, x in batches:
            with self.trainer.precision_plugin.forward_context():  # as the step had it
                where = first_nonfinite(self.backbone, x)
            if not torch.isfinite(loss):
                where = where or "every layer is finite, so the loss itself overflowed"
                return self._in_words(where, f"the loss became {loss.item()}")
            if where:
                return self._in_words(where)
        return ""

    def _bad_gradient(self) -> str:
        """Where gradients, which all ranks share, became infinite or NaN: they come from behind."""
        for name, parameter in reversed(list(self.named_parameters())):
            if parameter.grad is not None and not torch.isfinite(norm := parameter.grad.norm()):
                where = f"from {name} backwards, though the loss is finite"
                return self._in_words(where, f"the gradient became {norm.item()}")
        return self._in_words("the norm of all gradients overflowed")

    def _in_words(self, where: str, what: str = "") -> str:
        """What became infinite or NaN, when, where in the network it began, and what may help."""
        if self.trainer.testing:
            return f"{what or 'the test stopped'}: {where}"
        return (
            f"{what or 'training stopped'} in epoch {self.current_epoch + 1}, "
            f"step {self.global_step}: {where}. "
            "The last good checkpoint is kept; a lower optimizer.lr, trainer.gradient_clip_val=1 "
            "or trainer.precision=32-true may help."
        )

    def _first_said(self, words: str) -> str:
        """What the first of the ranks says that has something to say; all must ask."""
        ranks = range(self.trainer.world_size)
        said = [self.trainer.strategy.broadcast(words, rank) for rank in ranks]
        return next(filter(None, said), "")
