"""Losses of spiking logits.

T timesteps, B batch, K classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from saformer.config.schema import LossConfig
from saformer.models.surrogate import state_dtype


def classification_loss(logits: Tensor, target: Tensor, config: LossConfig) -> Tensor:
    """Cross-entropy of spiking logits.

    Plain: CE(mean_t o_t, y). TET (arXiv 2202.11946, equations 9 to 11):
    (1 - lambda) * mean_t CE(o_t, y) + lambda * MSE(o, tet_mean).

    Args:
        logits: [T, B, K].
        target: Class numbers [B], or class probabilities [B, K] from MixUp and CutMix.
        config: Label smoothing and TET.
    """

    def cross_entropy(o: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(o, y, label_smoothing=config.label_smoothing)

    if not config.tet:
        return cross_entropy(mean_over_time(logits), target)
    repeated = target.repeat(len(logits), *[1] * (target.ndim - 1))
    pull = F.mse_loss(logits, torch.full_like(logits, config.tet_mean))
    data = cross_entropy(logits.flatten(0, 1), repeated)
    return (1 - config.tet_lambda) * data + config.tet_lambda * pull


def mean_over_time(logits: Tensor) -> Tensor:
    """Average logits over time, [T, B, K] -> [B, K]; half precision of autocast becomes float32."""
    return logits.to(state_dtype(logits)).mean(0)
