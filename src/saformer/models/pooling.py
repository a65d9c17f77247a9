"""Max-pooling that keeps only the position of each maximum for the backward pass.

PyTorch's max-pooling also keeps its input, although only the shape is needed, and it stores the
positions as int64.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class LeanMaxPool2d(nn.MaxPool2d):
    """nn.MaxPool2d with the same results and gradients, to the bit."""

    def forward(self, x: Tensor) -> Tensor:
        """Map the input [B, C, H, W] to the maxima of its windows."""
        # In a compiled network, the compiler does the pooling and chooses what to keep.
        if not torch.is_grad_enabled() or torch.compiler.is_compiling():
            y: Tensor = super().forward(x)
            return y
        window = (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)
        y = _MaxPool.apply(x, window)
        return y


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, window: tuple[Any, ...]) -> Tensor:
        y, positions = F.max_pool2d_with_indices(x, *window)
        small = x.shape[-2] * x.shape[-1] <= torch.iinfo(torch.int16).max
        ctx.save_for_backward(positions.to(torch.int16 if small else torch.int32))
        last = x.is_contiguous(memory_format=torch.channels_last)
        ctx.memory_format = torch.channels_last if last else torch.contiguous_format
        ctx.shape, ctx.window = x.shape, window
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (positions,) = ctx.saved_tensors
        gx = torch.empty(
            ctx.shape,
            dtype=grads[0].dtype,
            device=grads[0].device,
            memory_format=ctx.memory_format,
        )
        kernel, stride, padding, dilation, ceil = (
            value if isinstance(value, bool) else _pair(value) for value in ctx.window
        )
        # The kernel reads only shape and layout of its input; the gradient has the same ones.
        _backward(
            grads[0], gx, kernel, stride, padding, dilation, ceil, positions.long(), grad_input=gx
        )
        return gx, None


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


_backward = torch.ops.aten.max_pool2d_with_indices_backward.grad_input
