"""Convolutions over a whole sequence: time folds into the batch here and nowhere else.

Every feature map between layers is [T, B, C, H, W]. T is outermost, so folding T and B and
unfolding them again are views, and BatchNorm pools its statistics over time as well as over images.

T timesteps, B batch, C channels, H W height and width.
"""

from torch import Tensor, nn


class ConvBN(nn.Module):
    """Convolution with "same" padding, then BatchNorm: [T, B, C_in, H, W] -> [T, B, C_out, ...].

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        kernel_size: Odd side of the kernel.
        stride: Step of the kernel, in pixels.
        groups: 1 for a full convolution, `in_channels` for a depthwise one.
        bias: Give the convolution a bias. BatchNorm makes it redundant; the Spikformer family has
            one in its projection and MLP, and parameter counts are compared with theirs.
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
        y: Tensor = self.bn(self.conv(x.flatten(0, 1)))
        return y.unflatten(0, x.shape[:2])


class MaxPool(nn.Module):
    """Max-pooling 3x3 at stride 2 (on spikes: an OR): [T, B, C, H, W] -> [T, B, C, H/2, W/2]."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.pool(x.flatten(0, 1))
        return y.unflatten(0, x.shape[:2])


def freeze(module: nn.Module) -> None:
    """Turn the parameters of a module into buffers: saved with it, never trained."""
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, parameter.detach())
