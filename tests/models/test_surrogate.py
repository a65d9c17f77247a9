"""The surrogate derivatives are the curves that the docstring writes down."""

import copy
import math
import pickle

import pytest
import snntorch.surrogate
import torch
from spikingjelly.activation_based import surrogate as spikingjelly
from torch.autograd import gradcheck

from saformer.models.settings import Fire, SurrogateName
from saformer.models.surrogate import derivative, spike_grad, vjp_

ALPHAS = (0.5, 2.0, 4.0)
# The smooth curve that each surrogate is the derivative of.
INTEGRALS = {
    SurrogateName.sigmoid: lambda u, alpha: torch.sigmoid(alpha * u),
    SurrogateName.atan: lambda u, alpha: torch.atan(math.pi / 2 * alpha * u) / math.pi,
    SurrogateName.fast_sigmoid: lambda u, alpha: u / (1 + alpha * u.abs()),
    SurrogateName.triangular: lambda u, alpha: (alpha * u - alpha**2 / 2 * u * u.abs()).where(
        u.abs() < 1 / alpha, u.sign() / 2
    ),
}


def grid(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    # Away from 0 and from 1/alpha, where the curves have kinks.
    return torch.linspace(-3.1, 3.1, 62, dtype=dtype)


class Smooth(torch.autograd.Function):
    """The integral forward, our derivative backward: what gradcheck needs to compare them."""

    @staticmethod
    def forward(ctx, u, name, alpha):
        ctx.save_for_backward(u)
        ctx.name, ctx.alpha = name, alpha
        return INTEGRALS[name](u, alpha)

    @staticmethod
    def backward(ctx, grad):
        (u,) = ctx.saved_tensors
        return vjp_(ctx.name, u.clone(), grad, ctx.alpha), None, None


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("name", SurrogateName)
def test_each_is_the_derivative_of_its_curve(name, alpha):
    """gradcheck in fp64: A(u) is the numerical derivative of the smooth step it belongs to."""
    u = grid().requires_grad_()
    assert gradcheck(lambda u: Smooth.apply(u, name, alpha), (u,))


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("name", SurrogateName)
def test_both_forms_agree(name, alpha):
    """The in-place form and the pure one that is compiled give the same derivative, and even."""
    u = grid()
    ones = torch.ones_like(u)
    torch.testing.assert_close(vjp_(name, u.clone(), ones, alpha), derivative(name, u, alpha))
    torch.testing.assert_close(derivative(name, -u, alpha), derivative(name, u, alpha))


PEERS = {
    SurrogateName.sigmoid: (spikingjelly.Sigmoid, snntorch.surrogate.sigmoid),
    SurrogateName.atan: (spikingjelly.ATan, snntorch.surrogate.atan),
    SurrogateName.fast_sigmoid: (None, snntorch.surrogate.fast_sigmoid),
    SurrogateName.triangular: (spikingjelly.PiecewiseQuadratic, None),
}


@pytest.mark.parametrize("name", SurrogateName)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_they_are_the_curves_of_the_named_libraries(name, alpha):
    """The gradients of SpikingJelly's and snnTorch's surrogates of the same name are ours."""
    ours = derivative(name, grid(torch.float32), alpha)
    for build in filter(None, PEERS[name]):
        u = grid(torch.float32).requires_grad_()
        build(alpha)(u).sum().backward()
        torch.testing.assert_close(u.grad, ours, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SurrogateName)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_gradients_stay_finite(name, dtype):
    """No input overflows the derivative, in any dtype; snnTorch's sigmoid gives NaN at -0.45."""
    u = torch.tensor([-1e4, -44.0, -0.45, 0.0, 0.45, 44.0, 1e4], dtype=dtype, requires_grad=True)
    spikes = spike_grad(name, 25.0, Fire.ge)(u)
    spikes.sum().backward()
    assert spikes.dtype == u.grad.dtype == dtype
    assert torch.isfinite(u.grad).all()
    assert u.grad[3] > 0


def test_ties_fire_or_not_as_asked():
    """`ge` fires at the threshold, `gt` only above it."""
    u = torch.tensor([-1.0, 0.0, 1.0])
    assert spike_grad(SurrogateName.atan, 2.0, Fire.ge)(u).tolist() == [0, 1, 1]
    assert spike_grad(SurrogateName.atan, 2.0, Fire.gt)(u).tolist() == [0, 0, 1]


def test_a_surrogate_can_be_copied_and_pickled():
    """snnTorch's closures can be neither, which keeps models from being sent to workers."""
    ours = spike_grad(SurrogateName.sigmoid, 4.0, Fire.ge)
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(twin(grid()), ours(grid()))
