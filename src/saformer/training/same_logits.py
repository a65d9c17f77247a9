"""Detect a network whose output does not depend on its input."""

import torch
from torch import Tensor
from torchmetrics import Metric

NOISE = 1e-5  # relative rounding in float32: the order of sums depends on the number of images


class SameLogits(Metric):
    """Whether the logits of all images are the same, except for the rounding of sums.

    Args:
        num_classes: Number of classes K.
    """

    full_state_update = False
    lowest: Tensor
    highest: Tensor
    images: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self._noise = NOISE
        self.add_state("lowest", torch.full((num_classes,), torch.inf), dist_reduce_fx="min")
        self.add_state("highest", torch.full((num_classes,), -torch.inf), dist_reduce_fx="max")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, logits: Tensor, computed_in: torch.dtype) -> None:
        """Add the logits of some images [B, K], which were computed with a given precision."""
        self._noise = max(NOISE, 2 * torch.finfo(computed_in).eps)
        self.lowest = torch.minimum(self.lowest, logits.amin(0))
        self.highest = torch.maximum(self.highest, logits.amax(0))
        self.images += len(logits)

    def compute(self) -> Tensor:
        """Whether all logits were the same; false for a single image."""
        size = torch.maximum(self.lowest.abs(), self.highest.abs()).max()
        return (self.images > 1) & ((self.highest - self.lowest).max() <= self._noise * size)
