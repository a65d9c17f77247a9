"""Fold BatchNorm into the convolution before it, for a network that is no longer trained."""

import copy
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from saformer.models.layers import ConvBN

Network = TypeVar("Network", bound=nn.Module)


def fold_batch_norm(model: Network) -> Network:
    """Copy a network into evaluation mode, and fold each BatchNorm into its convolution.

    The scale of BatchNorm goes into the weights of the convolution, and its shift into the bias;
    the memory layout stays the same. An identity replaces BatchNorm. Sums are rounded differently
    than before, so a membrane that equals its threshold up to rounding may fire at another step.

    Args:
        model: A trained network; it is not changed.
    """
    folded = copy.deepcopy(model).eval()
    for part in folded.modules():
        if isinstance(part, ConvBN) and isinstance(part.bn, nn.BatchNorm2d):
            part.conv = fuse_conv_bn_eval(part.conv, part.bn)
            part.bn = nn.Identity()  # type: ignore[assignment]
    return folded
