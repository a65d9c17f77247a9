"""Convolutions over a whole sequence; only this module folds time into the batch.

Every feature map between layers is [T, B, C, H, W]. T is the first axis, so folding T and B and
unfolding them again are views. BatchNorm computes its statistics over time as well as over images.

T timesteps, B batch, C channels, H W height and width.
"""

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn

from saformer.models.neuron import MultiStepLeaky
from saformer.models.pooling import LeanMaxPool2d
from saformer.models.recompute import recomputed


class ConvBN(nn.Module):
    """Convolution with "same" padding, then BatchNorm: [T, B, C_in, H, W] -> [T, B, C_out, ...].

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        kernel_size: Odd side of the kernel.
        stride: Step of the kernel, in pixels.
        groups: 1 for a full convolution, `in_channels` for a depthwise one.
        bias: Give the convolution a bias. BatchNorm makes it redundant, but the Spikformer family
            has one in its projection and MLP, and we compare parameter counts with theirs.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            groups=groups,
            bias=bias,
        )
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map the input [T, B, C_in, H, W] to [T, B, C_out, H/stride, W/stride]."""
        y: Tensor = self.bn(self.conv(x.flatten(0, 1))).unflatten(0, x.shape[:2])
        return y


class MaxPool(nn.Module):
    """Max-pooling 3x3 (on spikes: an OR): [T, B, C, H, W] -> [T, B, C, H/stride, W/stride].

    Args:
        stride: Step of the window, in pixels.
    """

    def __init__(self, stride: int = 2) -> None:
        super().__init__()
        self.pool = LeanMaxPool2d(kernel_size=3, stride=stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map the input [T, B, C, H, W] to [T, B, C, H/stride, W/stride]."""
        y: Tensor = self.pool(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return y


class Layers(nn.Sequential):
    """Apply layers one after the other.

    If the backbone sets `recompute`, training keeps only the output of each convolution, and the
    backward pass computes BatchNorm and the membranes of the neurons after it again.
    """

    recompute = False

    def forward(self, x: Tensor) -> Tensor:
        """Map the input [T, B, ...] to the output of the last layer."""
        return in_turn(self, x, self.recompute and self.training)


def in_turn(layers: Iterable[nn.Module], x: Tensor, recompute: bool) -> Tensor:
    """Apply layers one after the other; `Layers` explains `recompute`."""
    # In a compiled network, the compiler chooses what to keep.
    recompute &= torch.is_grad_enabled() and not torch.compiler.is_compiling()
    for first, *following in _from_convolution_to_neuron(layers):
        if recompute and isinstance(first, ConvBN) and following:
            parts = (first.bn, *following)
            run = partial(_normalise_and_fire, parts, x.shape[:2])
            x = recomputed(run, first.conv(x.flatten(0, 1)), parts)
        else:
            for layer in (first, *following):
                x = layer(x)
    return x


def _from_convolution_to_neuron(layers: Iterable[nn.Module]) -> list[list[nn.Module]]:
    """Group layers in order: each convolution with the layers up to its neuron, others alone."""
    groups: list[list[nn.Module]] = []
    start: int | None = None  # index of the last convolution that has no neuron after it yet
    for layer in layers:
        groups.append([layer])
        if isinstance(layer, ConvBN):
            start = len(groups) - 1
        elif isinstance(layer, MultiStepLeaky) and start is not None:
            groups[start:] = [[member for group in groups[start:] for member in group]]
            start = None
    return groups


def _normalise_and_fire(parts: tuple[nn.Module, ...], steps: torch.Size, y: Tensor) -> Tensor:
    norm, *following = parts
    x: Tensor = norm(y).unflatten(0, steps)
    for layer in following:
        x = layer(x)
    return x


def freeze(module: nn.Module) -> None:
    """Turn the parameters of a module into buffers, which are saved with it but never trained."""
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, parameter.detach())
