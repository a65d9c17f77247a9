"""Every backend computes what snn.Leaky computes, step by step, forward and backward."""

import copy
import itertools
import logging
import os
import subprocess
import sys

import pytest
import snntorch as snn
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import functional, neuron, surrogate
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from saformer.errors import SettingError
from saformer.models.neuron import MultiStepLeaky, build_neuron
from saformer.models.settings import Backend, Fire, NeuronConfig, Reset, SurrogateConfig

RESETS = [(Reset.hard, True), (Reset.hard, False), (Reset.soft, True), (Reset.none, True)]
LAWS = [
    {"reset": reset, "detach_reset": detach, "decay_input": decay_input, "fire": fire}
    for (reset, detach), decay_input, fire in itertools.product(RESETS, (True, False), Fire)
]
COMPILED_LAWS = [
    {},
    {"reset": Reset.hard, "detach_reset": False, "decay_input": False},
    {"reset": Reset.soft, "fire": Fire.gt},
    {"reset": Reset.none, "surrogate": SurrogateConfig(name="atan", alpha=2.0)},
    {"learnable_tau": True, "reset": Reset.soft, "surrogate": SurrogateConfig(name="triangular")},
    {"learnable_tau": True, "detach_reset": False},
]


def label(law: dict | int) -> str:
    if isinstance(law, int):
        return f"T={law}"
    return " ".join(f"{k}={getattr(v, 'value', v)}" for k, v in law.items()) or "default"


def run(law: dict, backend: Backend, x: torch.Tensor, gradient: torch.Tensor, **options):
    """Spikes, gradient of x, and gradients of the neuron's parameters."""
    layer = build_neuron(NeuronConfig(**law, backend=backend), **options)
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    spikes = layer(x)
    spikes.backward(gradient)
    return spikes.detach(), x.grad, [p.grad for p in layer.parameters()]


def assert_equal_to_loop(law: dict, backend: Backend, x: torch.Tensor, **options) -> None:
    """Bit-equal spikes, gradients within 2e-6 (of the largest, where that is above one).

    Rounding adds up along the steps, so that beyond four of them more is allowed.
    """
    generator = torch.Generator().manual_seed(x.numel())  # what fails must fail again
    gradient = torch.randn(x.shape, dtype=x.dtype, generator=generator)
    spikes, gx, gp = run(law, backend, x, gradient, **options)
    expected_spikes, expected_gx, expected_gp = run(law, Backend.loop, x, gradient, **options)
    assert spikes.dtype == x.dtype
    assert torch.equal(spikes, expected_spikes)
    largest = expected_gx.abs().max().clamp(min=1).item()
    allowed = 2e-6 * max(1, len(x) / 4) * largest
    torch.testing.assert_close(gx, expected_gx, rtol=0, atol=allowed)
    # A parameter's gradient sums all of them; the order of the sum is not the loop's.
    total = expected_gx.abs().sum().item() + 1
    for ours, loop in zip(gp, expected_gp, strict=True):
        torch.testing.assert_close(ours, loop, rtol=1e-5, atol=1e-6 * total)


def inputs(shape, dtype=torch.float32, ties=False, seed=0) -> torch.Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 1.5 + 0.6
    # Quarters, as pooled spikes and event counts are: many membranes land on the threshold.
    return ((4 * x).round() / 4 if ties else x).to(dtype)


@pytest.mark.parametrize("law", LAWS, ids=label)
@pytest.mark.parametrize("T", [1, 2, 4, 10, 16])
def test_torch_equals_the_loop(law, T):
    """For every reset, input scale and firing rule: the loop's spikes and gradients, ties too."""
    for dtype, ties in itertools.product((torch.float32, torch.float64), (False, True)):
        assert_equal_to_loop(law, Backend.torch, inputs((T, 3, 4, 5, 5), dtype, ties))


@pytest.mark.parametrize("law", LAWS, ids=label)
def test_learned_constants_have_the_gradients_of_the_loop(law):
    """Learnable tau and threshold get the loop's gradient, for every reset and rule."""
    law = law | {"learnable_tau": True}
    for dtype in (torch.float32, torch.float64):
        x = inputs((5, 4, 6, 3), dtype)
        assert_equal_to_loop(law, Backend.torch, x, learn_threshold=True)


@pytest.mark.parametrize("name", ["sigmoid", "atan", "fast_sigmoid", "triangular"])
@pytest.mark.parametrize("alpha", [0.7, 4.0])
@pytest.mark.parametrize(("reset", "detach"), RESETS)
def test_every_surrogate_equals_the_loop(name, alpha, reset, detach):
    """Each surrogate derivative acts as in the loop, whatever the reset."""
    shape = SurrogateConfig(name=name, alpha=alpha)
    law = {"reset": reset, "detach_reset": detach, "surrogate": shape}
    assert_equal_to_loop(law, Backend.torch, inputs((4, 3, 7)))


@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    T=st.sampled_from([1, 2, 4, 10, 16]),
    tau=st.floats(1, 20),
    v_threshold=st.floats(0.05, 3),
    law=st.sampled_from(LAWS),
    ties=st.booleans(),
    seed=st.integers(0, 2**16),
)
@settings(deadline=None, max_examples=150)
def test_any_shape_and_constants(shape, T, tau, v_threshold, law, ties, seed):
    """Random shapes, tau and thresholds: torch and loop agree to the last spike."""
    law = law | {"tau": tau, "v_threshold": v_threshold}
    x = inputs((T, *shape), ties=ties, seed=seed)
    assert_equal_to_loop(law, Backend.torch, x)


@pytest.mark.parametrize(
    "backend", [Backend.torch, pytest.param(Backend.compile, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    "make",
    [
        lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
        lambda x: (
            x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (4, 2))
        ),
        lambda x: x[..., ::2],
        lambda x: x[:1].expand(4, *x.shape[1:]),
    ],
    ids=["batch first", "channels_last", "strided", "expanded"],
)
def test_any_layout(backend, make):
    """Transposed, channels_last, strided and expanded inputs give the same as a contiguous one."""
    x = make(inputs((4, 2, 3, 6, 6)))
    assert_equal_to_loop({}, backend, x)


@pytest.mark.parametrize(
    ("T", "dtype"),
    [
        (2, torch.float32),
        *(
            pytest.param(T, dtype, marks=pytest.mark.slow)
            for T, dtype in itertools.product((1, 2, 4), (torch.float32, torch.float64))
            if (T, dtype) != (2, torch.float32)
        ),
    ],
)
def test_compile_equals_the_loop(T, dtype):
    """The compiled kernels give the loop's spikes and gradients, in fp32 and fp64, ties too."""
    for ties in (False, True):
        assert_equal_to_loop({}, Backend.compile, inputs((T, 3, 4, 5, 5), dtype, ties))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("law", "T"), [*((law, 4) for law in COMPILED_LAWS[1:]), ({}, 10), ({}, 16)], ids=label
)
def test_compile_equals_the_loop_for_every_law(law, T):
    """The same for other resets, surrogates and learned constants, and for long sequences."""
    assert_equal_to_loop(law, Backend.compile, inputs((T, 3, 4, 5, 5)))


@pytest.mark.slow
def test_compile_takes_every_size_without_compiling_again(monkeypatch):
    """Batch sizes, shapes, tau and thresholds share one graph for each direction."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    for shape, tau, threshold in (((8, 5, 7, 6), 2.0, 1.0), ((9, 11, 4, 2), 3.0, 0.5)):
        law = {"tau": tau, "v_threshold": threshold}
        assert_equal_to_loop(law, Backend.compile, inputs((3, *shape)))
    assert counters["stats"]["unique_graphs"] == 2


@pytest.mark.parametrize(
    "backend",
    [Backend.loop, Backend.torch, pytest.param(Backend.compile, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_state_is_fp32_under_autocast(backend, dtype):
    """Half-precision input gives half-precision spikes, those of an fp32 membrane."""
    x = inputs((4, 5, 300)).to(dtype)
    with torch.autocast("cpu", dtype):
        layer = build_neuron(NeuronConfig(backend=backend))
        half = x.clone().requires_grad_()
        spikes = layer(half)
        spikes.float().sum().backward()
    full = x.float().requires_grad_()
    expected = build_neuron(NeuronConfig(backend=Backend.loop))(full)
    expected.sum().backward()
    assert spikes.dtype == half.grad.dtype == dtype
    assert torch.equal(spikes.float(), expected)
    torch.testing.assert_close(half.grad, full.grad.to(dtype), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("backend", [Backend.loop, Backend.torch])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_huge_inputs_have_finite_gradients(backend, dtype):
    """Membranes of 1e4 neither overflow nor give NaN."""
    x = torch.tensor([-1e4, -3.0, 0.0, 2.0, 1e4], dtype=dtype).expand(4, 5).clone()
    _, gradient, _ = run({}, backend, x, torch.ones_like(x))
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("tau", [2.0, 1.5, 4.0])
@pytest.mark.parametrize("v_threshold", [1.0, 0.5])
@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("decay_input", [True, False])
def test_equal_to_spikingjelly(tau, v_threshold, detach, decay_input):
    """SpikingJelly's LIFNode with the same settings fires alike and has the same gradient."""
    peer = neuron.LIFNode(
        tau=tau,
        decay_input=decay_input,
        v_threshold=v_threshold,
        detach_reset=detach,
        surrogate_function=surrogate.Sigmoid(4.0),
        step_mode="m",
    )
    # fp64, because v + (x - v)/tau and b v + c x round differently; ties need tau = 2.
    x = inputs((8, 4, 500), torch.float64, ties=tau == 2.0)
    gradient = torch.randn_like(x)
    theirs = x.clone().requires_grad_()
    expected = peer(theirs)
    expected.backward(gradient)
    functional.reset_net(peer)
    law = {
        "tau": tau,
        "v_threshold": v_threshold,
        "detach_reset": detach,
        "decay_input": decay_input,
    }
    layer = build_neuron(NeuronConfig(**law)).double()
    layer.beta.fill_(1 - 1 / tau)  # .double() keeps the fp32 value of 1 - 1/tau
    ours = x.clone().requires_grad_()
    spikes = layer(ours)
    spikes.backward(gradient)
    assert torch.equal(spikes, expected)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-6)


def test_without_a_tau_it_is_spikingjellys_if(compose):
    """neuron=if forgets nothing: it fires as SpikingJelly's IFNode and has the same gradient."""
    peer = neuron.IFNode(
        v_reset=0.0,
        detach_reset=True,
        surrogate_function=surrogate.Sigmoid(4.0),
        step_mode="m",
    )
    layer = build_neuron(compose("neuron=if").neuron).double()
    x = inputs((8, 4, 500), torch.float64, ties=True)
    gradient = torch.randn_like(x)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    spikes, expected = layer(ours), peer(theirs)
    spikes.backward(gradient)
    expected.backward(gradient)
    assert torch.equal(spikes, expected)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["decay_input", "learnable_tau"])
def test_what_needs_a_tau_is_refused_without_one(name):
    """Without a tau there is neither an input scaled by it nor one to learn."""
    wrong = {"decay_input": False, "learnable_tau": False} | {name: True}
    with pytest.raises(SettingError, match=f"neuron.{name} must be false with neuron.tau=null"):
        NeuronConfig(tau=None, **wrong)


@pytest.mark.parametrize("reset", ["zero", "subtract", "none"])
@pytest.mark.parametrize("options", [{}, {"learn_beta": True, "learn_threshold": True}])
def test_it_is_a_stock_leaky(reset, options):
    """Same constructor, class, state_dict and results as snn.Leaky, which it can stand in for."""
    stock = snn.Leaky(beta=0.9, threshold=1.2, reset_mechanism=reset, **options)
    ours = MultiStepLeaky(beta=0.9, threshold=1.2, reset_mechanism=reset, **options)
    assert isinstance(ours, snn.Leaky)
    assert ours.state_dict().keys() == stock.state_dict().keys()
    ours.load_state_dict(stock.state_dict())
    x = inputs((6, 4, 50)).requires_grad_()
    mem, expected = stock.reset_mem(), []
    for step in x.unbind(0):
        spike, mem = stock(step, mem)
        expected.append(spike)
    gradient = torch.randn_like(x)
    (theirs,) = torch.autograd.grad(torch.stack(expected), x, gradient)
    spikes = ours(x)
    (mine,) = torch.autograd.grad(spikes, x, gradient)
    assert torch.equal(spikes, torch.stack(expected))
    torch.testing.assert_close(mine, theirs, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"spike_grad": snn.surrogate.fast_sigmoid()}, "a spike_grad of your own"),
        ({"graded_spikes_factor": 2.0}, "graded spikes"),
        ({"beta": torch.full((50,), 0.5)}, "a decay or threshold for each channel"),
        ({"reset_delay": False}, "detach_reset=false with a soft reset"),
        ({"inhibition": True}, "inhibition"),
    ],
)
@pytest.mark.filterwarnings("ignore:Inhibition is an unstable feature")
def test_options_of_leaky_that_need_the_loop(options, reason, caplog):
    """What the kernels do not cover runs on the loop, says so in one line, and equals snn.Leaky."""
    import saformer.models.neuron as module

    module._warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        ours = MultiStepLeaky(**{"beta": 0.5} | options)
    assert caplog.messages == [f"{reason}: these neurons run step by step (backend loop)"]
    stock = snn.Leaky(**{"beta": 0.5} | options)
    x = inputs((4, 3, 50))
    mem, expected = stock.reset_mem(), []
    for step in x.unbind(0):
        spike, mem = stock(step, mem)
        expected.append(spike)
    assert torch.equal(ours(x), torch.stack(expected))
    assert ours.mem.numel() == 0


@pytest.mark.parametrize("option", ["init_hidden", "output"])
def test_state_cannot_be_kept(option):
    """A neuron without state refuses options about state."""
    with pytest.raises(ValueError, match="MultiStepLeaky has no state"):
        MultiStepLeaky(beta=0.5, **{option: True})


@pytest.mark.parametrize("backend", [Backend.loop, Backend.torch])
def test_nothing_is_left_behind(backend):
    """After a training step the membrane is empty, a copy works, and the next batch may differ."""
    layer = build_neuron(NeuronConfig(backend=backend, learnable_tau=True))
    first = layer(inputs((4, 3, 5)))
    first.sum().backward()
    assert layer.mem.numel() == 0
    twin = copy.deepcopy(layer)
    assert torch.equal(twin(inputs((4, 2, 7))), layer(inputs((4, 2, 7))))
    assert torch.equal(layer(inputs((4, 3, 5))), first)


@pytest.mark.parametrize(("beta", "bound"), [(-0.3, 0.0), (1.3, 1.0)])
def test_a_decay_that_left_its_range_is_its_bound(beta, bound):
    """A learned decay beyond 0 or 1 counts as that, for membrane and input, on each backend."""
    found = []
    for backend in (Backend.loop, Backend.torch):
        for value in (beta, bound):
            layer = build_neuron(NeuronConfig(learnable_tau=True, backend=backend))
            with torch.no_grad():
                layer.beta.fill_(value)
                found.append(layer(inputs((4, 3, 50))))
    assert all(torch.equal(found[0], other) for other in found)


def test_a_surrogate_is_the_third_argument():
    """Given by place as in snn.Leaky, only a surrogate needs the loop, not decay and threshold."""
    assert not MultiStepLeaky(0.5, 1.2).loop_only
    own = snn.surrogate.fast_sigmoid()
    assert MultiStepLeaky(0.5, 1.2, own).loop_only == "a spike_grad of your own"


def test_neurons_can_be_garbage_collected():
    """snnTorch keeps every neuron of the process in a list; ours are not in it."""
    before = len(snn.SpikingNeuron.instances)
    build_neuron(NeuronConfig())
    assert len(snn.SpikingNeuron.instances) == before


def test_hooks_fire():
    """The layer is called as a module, so energy counting can hook it."""
    layer, seen = build_neuron(NeuronConfig()), []
    layer.register_forward_hook(lambda _m, args, out: seen.append((args[0].shape, out.shape)))
    layer(inputs((4, 2, 3)))
    assert seen == [((4, 2, 3), (4, 2, 3))]


class Traffic(TorchDispatchMode):
    """Counts the kernels that touch memory and the bytes they read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        is_view = any(r.alias_info and not r.alias_info.is_write for r in func._schema.returns)
        read, written = (
            [t for t in tree_leaves(x) if isinstance(t, torch.Tensor) and t.numel() > 1]
            for x in ((args, kwargs), out)
        )
        if (read or written) and not is_view and "empty" not in func.name():
            self.kernels += 1
            self.bytes += sum(t.numel() * t.element_size() for t in [*read, *written])
        return out


def test_the_torch_backend_moves_few_bytes():
    """Kernels and bytes, which predict the speed without noise, stay within their bounds at T=4.

    The stock loop launches 54 + 48 kernels and moves 250 bytes for each neuron and step.
    """
    layer = build_neuron(NeuronConfig(backend=Backend.torch))
    x = inputs((4, 1000)).requires_grad_()
    gradient = torch.ones_like(x)
    with Traffic() as forward:
        spikes = layer(x)
    with Traffic() as backward:
        torch.autograd.grad(spikes, x, gradient)
    assert forward.kernels <= 11
    assert backward.kernels <= 20
    assert (forward.bytes + backward.bytes) / x.numel() <= 125


def test_only_the_membrane_is_kept_for_the_backward():
    """A layer holds 4 bytes a neuron and step until the backward pass, nothing else."""
    layer = build_neuron(NeuronConfig(backend=Backend.torch))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        x = inputs((4, 1000)).requires_grad_()
        layer(x)
    assert sum(t.numel() * t.element_size() for t in kept if t.numel() > 1) == 4 * x.numel()


@pytest.mark.slow
def test_without_a_compiler_it_runs_on_torch():
    """A machine without a C++ compiler gets one warning and the same result."""
    script = (
        "import logging, torch\n"
        "logging.basicConfig(format='%(message)s')\n"
        "from saformer.models.neuron import build_neuron\n"
        "from saformer.models.settings import Backend, NeuronConfig\n"
        "layer = build_neuron(NeuronConfig(backend=Backend.compile))\n"
        "for _ in range(2):\n"
        "    x = torch.ones(4, 10, requires_grad=True)\n"
        "    layer(x).sum().backward()\n"
        "print(x.grad.sum().item() > 0)\n"
    )
    env = {**os.environ, "CXX": "/nonexistent", "TORCHINDUCTOR_CACHE_DIR": "cache"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env)
    assert done.stdout == "True\n"
    (line,) = done.stderr.splitlines()
    assert line.startswith("no working compiler (")
    assert line.endswith("): neurons run on backend torch")


@pytest.mark.parametrize(("tau", "spikes"), [(1.5, 6), (2.0, 8)])
def test_a_count_that_just_reaches_the_threshold_fires(tau, spikes):
    """Behind a product of spikes, spikes/8/tau = 0.5 fires at a threshold of 0.5, one less not."""
    neuron = build_neuron(NeuronConfig(tau=tau), v_threshold=0.5)
    counts = torch.tensor([[spikes - 1.0, float(spikes)]])
    assert neuron(counts * 0.125).tolist() == [[0.0, 1.0]]
