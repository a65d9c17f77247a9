"""Only what is zeros and ones by construction is packed: whatever a neuron is, gradients stay."""

import copy
import warnings
from contextlib import nullcontext

import pytest
import snntorch.surrogate
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from saformer.models.layers import MaxPool
from saformer.models.memory import SpikeKeeper
from saformer.models.neuron import MultiStepLeaky
from saformer.models.settings import Backend, Fire, SurrogateName
from saformer.models.spike_ops import ResidualAdd, SpikeMask, SpikeMatMul, SpikeMax

T, B, N = 3, 2, 6


class Half(MultiStepLeaky):
    """Spikes of half the size."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * super().forward(x)


class Graded(MultiStepLeaky):
    """Steps that give membranes where they are positive."""

    def _loop(self, x: Tensor) -> Tensor:
        return x.relu()

    def _backend_for(self, x: Tensor) -> Backend:
        return Backend.loop


class InPlace(MultiStepLeaky):
    """Spikes of three, written over those of one."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).mul_(3)


def quantised(mem: Tensor) -> Tensor:
    return mem.mul(4).round().div(4)


def network(make) -> nn.Sequential:
    """Linear layers with neurons between them, which spike."""
    torch.manual_seed(0)
    layers = [nn.Linear(N, N), make(), nn.Linear(N, N), make(), nn.Linear(N, N)]
    return nn.Sequential(*layers)


def run(model: nn.Module, packed: bool) -> dict[str, Tensor]:
    """Output and gradients of all parameters and of the input."""
    model = copy.deepcopy(model)
    keeping = SpikeKeeper(model).keeping() if packed else nullcontext()
    x = torch.randn(T, B, N, generator=torch.Generator().manual_seed(1)).mul_(2).requires_grad_()
    with keeping:
        y = model(x)
    (y * torch.arange(y.numel()).view(y.shape)).sum().backward()
    found = {"y": y, "d x": x.grad, **{name: p.grad for name, p in model.named_parameters()}}
    return {name: value for name, value in found.items() if value is not None}


def require_packing_changes_nothing(model: nn.Module) -> dict[str, Tensor]:
    wanted, found = run(model, packed=False), run(model, packed=True)
    assert wanted.keys() == found.keys()
    assert [name for name, value in wanted.items() if not torch.equal(found[name], value)] == []
    return wanted


options = st.fixed_dictionaries(
    {
        "beta": st.sampled_from([0.5, 1.0, torch.linspace(0.2, 0.9, N)]),
        "threshold": st.sampled_from([0.3, 1.0]),
        "reset_mechanism": st.sampled_from(["zero", "subtract", "none"]),
        "fire": st.sampled_from(Fire),
        "surrogate": st.tuples(st.sampled_from(SurrogateName), st.sampled_from([1.0, 4.0])),
        "backend": st.sampled_from([Backend.auto, Backend.loop, Backend.torch]),
    },
    optional={
        "learn_beta": st.booleans(),
        "learn_threshold": st.booleans(),
        "reset_delay": st.booleans(),
        "decay_input": st.booleans(),
        "graded_spikes_factor": st.sampled_from([1.0, 0.5, 2.0]),
        "learn_graded_spikes_factor": st.booleans(),
        "inhibition": st.booleans(),
        "state_quant": st.sampled_from([False, quantised]),
        "surrogate_disable": st.booleans(),
        "spike_grad": st.sampled_from([snntorch.surrogate.atan(), torch.relu]),
    },
)
kinds = st.sampled_from([MultiStepLeaky, MultiStepLeaky, Half, Graded, InPlace])


@settings(max_examples=150, deadline=None)
@given(kinds, options)
def test_packing_changes_no_neuron(kind, options):
    """Outputs and gradients are those without packing, for every option and for subclasses."""
    with warnings.catch_warnings(action="ignore"):  # of snnTorch, about inhibition
        model = network(lambda: kind(**copy.deepcopy(options)))
    require_packing_changes_nothing(model)


@pytest.mark.slow
def test_packing_changes_no_compiled_neuron():
    """The same on compiled kernels."""
    for reset in ("zero", "subtract", "none"):
        make = lambda: MultiStepLeaky(0.5, 0.3, reset_mechanism=reset, backend=Backend.compile)  # noqa: B023, E731
        require_packing_changes_nothing(network(make))


def plain() -> MultiStepLeaky:
    return MultiStepLeaky(beta=0.5, threshold=0.3)


def test_the_neuron_of_the_package_is_packed():
    """What the tests here compare is packed where it can be: a bit for each spike."""
    neuron = plain()
    keeper = SpikeKeeper(neuron)
    with keeper.keeping():
        held = keeper._pack(neuron(torch.randn(4, 16)))
    assert held.packed.bits and held.packed.data.nbytes == 8


@pytest.mark.parametrize("prepend", [False, True])
@pytest.mark.parametrize("change", [lambda y: 2 * y, lambda y: y.mul_(2)], ids=["new", "in place"])
def test_a_hook_may_change_spikes(change, prepend):
    """What a forward hook of the user's makes of spikes is not taken for spikes."""
    model = network(plain)
    keeper = SpikeKeeper(model)  # which a backbone builds before anybody can reach it
    for neuron in (model[1], model[3]):
        neuron.register_forward_hook(lambda _m, _x, y: change(y), prepend=prepend)
    x = torch.randn(T, B, N).requires_grad_()
    found = []
    for keeping in (nullcontext(), keeper.keeping()):
        model.zero_grad()
        with keeping:
            model(x).square().sum().backward()
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert all(map(torch.equal, *found))


def test_a_replaced_forward_may_change_spikes():
    """A method that is put on an object is heeded as one of a subclass is."""
    model = network(plain)
    for neuron in (model[1], model[3]):
        neuron.forward = lambda x: 1.5 * (x > 0.3).float() + 0 * x
    require_packing_changes_nothing(model)


def test_a_loaded_factor_counts():
    """Weights with graded spikes, loaded into a neuron that had none, give graded spikes."""
    graded = MultiStepLeaky(beta=0.5, threshold=0.3, graded_spikes_factor=2.0)
    loaded = plain()
    loaded.load_state_dict(graded.state_dict())
    x = torch.randn(T, B, N)
    assert torch.equal(loaded(x), graded(x))
    assert loaded(x).max() == 2
    model = network(plain)
    for neuron in (model[1], model[3]):
        neuron.load_state_dict(graded.state_dict())
    require_packing_changes_nothing(model)
    loaded.load_state_dict(plain().state_dict())
    assert torch.equal(loaded(x), plain()(x))


class Mask(SpikeMask):
    def forward(self, mask: Tensor, x: Tensor) -> Tensor:
        return 0.5 * super().forward(mask, x)


class Add(ResidualAdd):
    def forward(self, x: Tensor, branch: Tensor) -> Tensor:
        return super().forward(x, branch) / 2


class Product(SpikeMatMul):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return super().forward(a, b) - 1


class Max(SpikeMax):
    def forward(self, x: Tensor, dim: int) -> Tensor:
        return super().forward(x, dim) + 0.5


class Pool(MaxPool):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 0.25


class Joined(nn.Module):
    """Two kinds of spikes that meet in one operation, before a layer that keeps what it is given.

    Args:
        operation: A module.
        call: What it makes of the operation, of spikes and of numbers that are none.
    """

    def __init__(self, operation: nn.Module, call) -> None:
        super().__init__()
        self.a, self.b, self.operation, self.call = plain(), plain(), operation, call
        self.after = nn.Linear(N, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.call(self.operation, self.a(x), self.b(x.flip(-1)), x)
        return self.after(y)


@pytest.mark.parametrize(
    ("operation", "call"),
    [
        (SpikeMask(), lambda f, a, b, x: f(a, b)),
        (SpikeMask(), lambda f, a, b, x: f(mask=a, x=x)),
        (Mask(), lambda f, a, b, x: f(a, b)),
        (ResidualAdd(), lambda f, a, b, x: f(a, b)),
        (ResidualAdd(), lambda f, a, b, x: f(a, 0.5)),
        (ResidualAdd(), lambda f, a, b, x: f(a, branch=x)),
        (ResidualAdd(), lambda f, a, b, x: f(x=x, branch=x)),
        (ResidualAdd(), lambda f, a, b, x: f(a, b).mul_(0.5)),
        (Add(), lambda f, a, b, x: f(a, b)),
        (SpikeMatMul(), lambda f, a, b, x: f(a, b.mT) @ b),
        (SpikeMatMul(), lambda f, a, b, x: f(a=a, b=x.mT) @ b),
        (Product(), lambda f, a, b, x: f(a, b.mT) @ b),
        (SpikeMax(), lambda f, a, b, x: f(a, 0)),
        (SpikeMax(), lambda f, a, b, x: f(x=x, dim=0)),
        (Max(), lambda f, a, b, x: f(a, 0)),
        (MaxPool(1), lambda f, a, b, x: f(a[:, :, None, None]).flatten(2)),
        (Pool(1), lambda f, a, b, x: f(a[:, :, None, None]).flatten(2)),
    ],
)
def test_packing_changes_no_operation_on_spikes(operation, call):
    """Nor what is made of spikes: by the package's modules, however called, and by subclasses."""
    torch.manual_seed(0)
    model = Joined(operation, call)
    keeper, x = SpikeKeeper(model), torch.randn(T, B, N)
    found = []
    for keeping in (nullcontext(), keeper.keeping()):
        model.zero_grad()
        with keeping:
            model(x).square().sum().backward()
        found.append(model.after.weight.grad.clone())
    assert torch.equal(*found)


def test_what_is_changed_too_late_is_refused():
    """As without packing: what the backward pass needs and was written over is an error."""
    model = network(plain)
    with SpikeKeeper(model).keeping():
        y = model(torch.randn(T, B, N)).sigmoid()
        y.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
