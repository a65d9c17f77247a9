"""BatchNorm folded into the convolution before it, for a network that learns no more."""

import copy
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from saformer.models.layers import ConvBN

Network = TypeVar("Network", bound=nn.Module)


def fold_batch_norm(model: Network) -> Network:
    """A copy in evaluation mode whose convolutions do what BatchNorm did behind them.

    The convolution takes the scale into its weights and the shift into its bias, in the layout that
    they had, and an identity takes BatchNorm's place. Sums round otherwise than before: a membrane
    that is within rounding of its threshold may fire at another step.

    Args:
        model: A trained network; it is left as it was.
    """
    folded = copy.deepcopy(model).eval()
    for part in folded.modules():
        if isinstance(part, ConvBN) and isinstance(part.bn, nn.BatchNorm2d):
            part.conv = fuse_conv_bn_eval(part.conv, part.bn)
            part.bn = nn.Identity()  # type: ignore[assignment]
    return folded
