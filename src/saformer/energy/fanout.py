"""Fan-out: how many operations one nonzero input element of a layer triggers.

A layer sums weight x input, so an input element triggers one operation for every weight that it is
multiplied with. These are fewer at a border, where some kernel taps fall outside the output, and
with a stride, which skips some taps. The map F of these numbers does not depend on the data. It is
the gradient of sum(layer(x)) when all weights are one. The number of operations of a spike tensor x
is then the inner product <x, F>.

H W height and width.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

Transposed: TypeAlias = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
Conv: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d | Transposed
Weighted: TypeAlias = Conv | nn.Linear
CONVS: tuple[type[Conv], ...] = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)
Arguments: TypeAlias = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class FanOut:
    """Operations that each input element of one application of a layer triggers.

    An application processes one vector in a linear layer, and one feature map in a convolution.
    """

    map: Tensor
    """Float64 on the CPU, aligned with the last axes of the input: [C or 1, H, W] for a convolution
    (1 if all channels have the same map), [D or 1] for a linear layer."""
    dense: float
    """Multiply-accumulates of a dense application, including those with zero weights."""
    uniform: float | None
    """The fan-out of all elements if they have the same, otherwise None."""

    def ops(self, counts: Tensor) -> Tensor:
        """Operations of each sample, float64 [B], from nonzero counts [B, ..., C, H, W].

        The counts must be float64, or their sum over the channels of a pixel must be below 2^24.
        """
        axes = self.map.ndim
        if self.map.shape[0] == 1:  # all channels have the same map: sum them on their device first
            counts = counts.sum(-axes, keepdim=True)
        if counts.ndim > axes + 1:
            counts = counts.flatten(1, -axes - 1).sum(1)
        return counts.flatten(1).cpu().double() @ self.map.flatten()


def applications(layer: Weighted, x: Tensor) -> int:
    """Number of vectors or feature maps in an input."""
    if isinstance(layer, nn.Linear):
        return x.numel() // layer.in_features
    return x.numel() // math.prod(x.shape[-len(layer.kernel_size) - 1 :])


def dense_padded(layer: Weighted, x: Tensor, out: Tensor) -> int:
    """Multiply-accumulates including the taps on padding, as FLOP counters report them."""
    if isinstance(layer, nn.Linear):
        return out.numel() * layer.in_features
    if isinstance(layer, Transposed):
        return x.numel() * layer.weight.numel() // layer.in_channels
    return out.numel() * layer.weight.numel() // layer.out_channels


def fan_out(layer: Weighted, x: Tensor, out: Tensor) -> FanOut:
    """The fan-out of a layer; a weight of exactly zero (a pruned one) triggers no operation.

    Args:
        layer: A convolution or linear layer.
        x: An input of the layer; only its shape is used.
        out: The output for this input; only its shape is used.
    """
    connected = layer.weight != 0
    pruned = not connected.all()
    if isinstance(layer, nn.Linear):
        dense = layer.in_features * layer.out_features
        full = torch.full((1,), layer.out_features)
        return _fan_out(connected.sum(0).cpu() if pruned else full, dense)
    kind: Any = next(kind for kind in CONVS if isinstance(layer, kind))
    spatial = tuple(x.shape[-len(layer.kernel_size) :])
    arguments = _arguments(layer, spatial, out)
    taps = _taps(kind, spatial, arguments) * (layer.out_channels // layer.groups)
    of_feature_map = taps.sum().item() * layer.in_channels
    if pruned:
        channels = (layer.in_channels, layer.out_channels, layer.groups)
        taps = _gradient(kind, channels, spatial, arguments, connected.cpu())
    return _fan_out(taps, of_feature_map)


def _fan_out(fan_outs: Tensor, dense: float) -> FanOut:
    least, most = (value.item() for value in fan_outs.aminmax())
    return FanOut(fan_outs.double(), dense, least if least == most else None)


def _arguments(layer: Conv, spatial: tuple[int, ...], out: Tensor) -> Arguments:
    """What the taps depend on beside the input size."""
    names = ["kernel_size", "stride", "padding", "dilation", "padding_mode"]
    arguments = {name: getattr(layer, name) for name in names}
    if isinstance(layer, Transposed):  # a call can request another output size than the default
        ends = zip(spatial, out.shape[-len(spatial) :], *list(arguments.values())[:4], strict=True)
        arguments["output_padding"] = tuple(
            n_out - ((n - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1)
            for n, n_out, kernel, stride, padding, dilation in ends
        )
    return tuple(arguments.items())


@functools.lru_cache(maxsize=256)
def _taps(kind: type[Conv], spatial: tuple[int, ...], arguments: Arguments) -> Tensor:
    """Number of kernel taps on each input pixel, float64 [1, H, W], the same for all channels."""
    return _gradient(kind, (1, 1, 1), spatial, arguments, torch.ones(1, device="cpu"))


def _gradient(
    kind: type[Conv],
    channels: tuple[int, int, int],
    spatial: tuple[int, ...],
    arguments: Arguments,
    weight: Tensor,
) -> Tensor:
    """Gradient of sum(conv(x)) with respect to one x, float64 [C, H, W], with this weight."""
    # Leave inference mode, in which Lightning evaluates, because it records no graph for autograd.
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False):
        c_in, c_out, groups = channels
        # skip_init, because drawing initial weights would change the random numbers of training.
        layer = skip_init(
            *(kind, c_in, c_out),
            groups=groups,
            bias=False,
            dtype=torch.float64,
            **dict(arguments),
        )
        layer.weight.data = weight.double().expand(layer.weight.shape)
        x = torch.zeros(*(1, c_in, *spatial), dtype=torch.float64, device="cpu", requires_grad=True)
        (gradient,) = torch.autograd.grad(layer(x).sum(), x)
    return gradient[0]
