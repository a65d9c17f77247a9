"""Surrogate derivatives, which replace the derivative of the step function.

The spike of a neuron is the step function H(u) of u = membrane - threshold. Its derivative is zero
wherever it exists, so the backward pass uses one of these even curves A(u) instead:

    sigmoid        alpha s (1 - s),  s = 1 / (1 + exp(-alpha u))
    atan           (alpha / 2) / (1 + (pi/2 alpha u)^2)
    fast_sigmoid   1 / (1 + alpha |u|)^2
    triangular     alpha max(0, 1 - alpha |u|)

Sources: sigmoid and atan are SpikingJelly's `Sigmoid(alpha)` and `ATan(alpha)` and snnTorch's
curves of the same names, triangular is SpikingJelly's `PiecewiseQuadratic(alpha)`, fast_sigmoid is
snnTorch's. We do not copy two faults of snnTorch 1.0: its sigmoid overflows, and its `triangular`
is negative for a neuron that fires.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from saformer.models.settings import Fire, SurrogateName


def vjp_(name: SurrogateName, u: Tensor, grad: Tensor, alpha: float) -> Tensor:
    """Compute A(u) * grad in the memory of `u`, with few passes over it.

    Args:
        name: Which curve.
        u: Distance from the threshold, of either sign because A is even; it is overwritten.
        grad: Gradient of the spikes, of the same shape and dtype.
        alpha: Steepness, in units of 1 / membrane potential.
    """
    if name is SurrogateName.sigmoid:
        s = u.mul_(alpha).sigmoid_()
        gx: Tensor = _sigmoid_backward(grad, s, grad_input=s).mul_(alpha)
        return gx
    if name is SurrogateName.atan:
        u.mul_(math.pi / 2 * alpha).square_().add_(1)
        return torch.div(grad, u, out=u).mul_(alpha / 2)
    if name is SurrogateName.fast_sigmoid:
        u.abs_().mul_(alpha).add_(1).square_()
        return torch.div(grad, u, out=u)
    return u.abs_().mul_(-alpha).add_(1).clamp_(min=0).mul_(grad).mul_(alpha)


def derivative(name: SurrogateName, u: Tensor, alpha: float) -> Tensor:
    """Compute A(u) as a pure expression, which torch.compile turns into one pass over memory."""
    if name is SurrogateName.sigmoid:
        s = torch.sigmoid(alpha * u)
        return alpha * s * (1 - s)
    if name is SurrogateName.atan:
        return alpha / 2 / (1 + (math.pi / 2 * alpha * u).square())
    if name is SurrogateName.fast_sigmoid:
        return 1 / (1 + alpha * u.abs()).square()
    return alpha * (1 - alpha * u.abs()).clamp(min=0)


def fires(fire: Fire, membrane: Tensor, threshold: Tensor | float) -> Tensor:
    """Boolean spikes: membrane >= threshold (`ge`) or membrane > threshold (`gt`)."""
    return membrane >= threshold if fire is Fire.ge else membrane > threshold


def state_dtype(x: Tensor) -> torch.dtype:
    """Dtype that a neuron computes in: fp64 for fp64 input, fp32 for every other."""
    return torch.float64 if x.dtype is torch.float64 else torch.float32


def spike_grad(name: SurrogateName, alpha: float, fire: Fire) -> Callable[[Tensor], Tensor]:
    """Make H(u) with the derivative A(u), in the form that snnTorch's neurons accept.

    Unlike snnTorch's own surrogates, it keeps the dtype of `u`, and it can be copied and pickled.

    Args:
        name: Surrogate derivative.
        alpha: Its steepness, in units of 1 / membrane potential.
        fire: Whether u = 0 fires.
    """
    return functools.partial(_step, name=name, alpha=alpha, fire=fire)


def _step(u: Tensor, name: SurrogateName, alpha: float, fire: Fire) -> Tensor:
    spikes: Tensor = _Step.apply(u, name, alpha, fire)
    return spikes


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, name: SurrogateName, alpha: float, fire: Fire) -> Tensor:
        ctx.save_for_backward(u)
        ctx.name, ctx.alpha = name, alpha
        return fires(fire, u, 0.0).to(u.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (u,) = ctx.saved_tensors
        # Compute in fp32 at least, because alpha u overflows and A(u) underflows in fp16.
        work = u.to(state_dtype(u), copy=True)
        return vjp_(ctx.name, work, grad.to(work.dtype), ctx.alpha).to(u.dtype), None, None, None


_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
