"""The backbone on CUDA tensors without a GPU: fake tensors have a device, a dtype and a shape only.

A tensor of the CPU that meets one of CUDA raises, as it would there; so does a number that is read
off a tensor, which on CUDA would wait for all that was queued.
"""

from collections import defaultdict, deque
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from mostly_slow import mostly_slow
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.function import BackwardCFunction

from saformer.create import create_model
from saformer.models import lif_kernels, memory, neuron

# SASA, SSA with its residual on spikes, SDSA, and QKTA beside SSA.
EVERY_ATTENTION = ["saformer_2_256", "spikformer_2_384", "sdt_2_256", "qkformer_4_384"]
MIXED = r"cuda.*cpu|cpu.*cuda"


@pytest.fixture(autouse=True)
def fused_kernels(monkeypatch):
    """What neurons run on CUDA, not compiled; no fake tensor stays in a cache."""
    monkeypatch.setattr(neuron, "_compile", lambda name: getattr(lif_kernels, f"{name}_fused"))
    monkeypatch.setattr(neuron, "_compiler_failed", False)
    caches = (memory._powers, memory._bytes_as_bits)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


@contextmanager
def on_cuda(name):
    """A model whose tensors are on CUDA; `Module.to` would ask for a driver."""
    model = create_model(name)
    with FakeTensorMode():
        move(model)
        yield model


def move(model):
    def like(x):
        return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="cuda")

    for module in model.modules():
        for key, x in module._parameters.items():
            if x is not None:
                module._parameters[key] = nn.Parameter(like(x), x.requires_grad)
        for key, x in module._buffers.items():
            if x is not None:
                module._buffers[key] = like(x)


def images(channels=3, side=32):
    return torch.rand(2, channels, side, side, device="cuda")


@contextmanager
def autocast(dtype):
    """As torch.autocast, which switches itself off where there is no CUDA."""
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", dtype is not None)
    torch.set_autocast_dtype("cuda", dtype or before[1])
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])
        torch.clear_autocast_cache()


def gradients(loss):
    """Backward node by node: autograd's engine asks for a CUDA context."""
    waits = defaultdict(int)
    seen, todo = {loss.grad_fn}, [loss.grad_fn]
    while todo:
        for node, _ in todo.pop().next_functions:
            if node is not None:
                waits[node] += 1
                if node not in seen:
                    seen.add(node)
                    todo.append(node)
    given = defaultdict(dict)
    given[loss.grad_fn][0] = torch.ones_like(loss)
    found = {}
    ready = deque([loss.grad_fn])
    while ready:
        node = ready.popleft()
        grads = given.pop(node, {})
        if type(node).__name__ == "AccumulateGrad":
            found[node.variable] = grads[0]
            continue
        args = [grads.get(i) for i in range(max(grads) + 1)]
        with torch.no_grad():
            outs = node.apply(*args) if isinstance(node, BackwardCFunction) else node(*args)
        outs = outs if isinstance(outs, tuple) else (outs,)
        for (after, number), grad in zip(node.next_functions, outs, strict=False):
            if after is not None:
                if grad is not None:
                    before = given[after].get(number)
                    given[after][number] = grad if before is None else before + grad
                waits[after] -= 1
                if not waits[after]:
                    ready.append(after)
    return found


def step(model, x, dtype=None):
    """Forward and backward; parameters that got a gradient, with it."""
    with autocast(dtype):
        logits = model(x)
        labels = torch.zeros(len(x), dtype=torch.long, device="cuda")
        loss = F.cross_entropy(logits.mean(0), labels)
    return gradients(loss)


@pytest.mark.parametrize("name", mostly_slow(EVERY_ATTENTION, 2))
def test_a_step_stays_on_cuda(name):
    """Training with autocast meets no tensor of the CPU and reads no number off the device."""
    with on_cuda(name) as model:
        found = step(model, images(), torch.bfloat16)
        assert all(gradient.is_cuda for gradient in found.values())
        assert {id(p) for p in found} == {id(p) for p in model.parameters()}  # none without one
        with torch.no_grad(), autocast(torch.bfloat16):
            assert model.eval()(images()).is_cuda


@pytest.mark.parametrize("dtype", [None, torch.float16], ids=str)
def test_a_step_of_any_precision_stays_on_cuda(dtype):
    """So it is in single and in half precision."""
    with on_cuda("saformer_tiny") as model:
        found = step(model, images(1, 8), dtype)
        assert all(gradient.is_cuda for gradient in found.values())


@pytest.mark.parametrize("name", ["saformer_2_256", "sdt_2_256", "qkformer_4_384"])
def test_autocast_keeps_spikes_in_its_dtype(name):
    """Behind the masks too: a layer that is given float32 casts it to a copy and keeps it whole."""
    given = {}
    with on_cuda(name) as model, autocast(torch.bfloat16):
        for layer, module in model.named_modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_pre_hook(
                    lambda _module, args, layer=layer: given.update({layer: args[0].dtype})
                )
        model(images())
    first, *others = given.values()
    assert first is torch.float32  # the images
    assert set(others) == {torch.bfloat16}


def test_a_tensor_of_the_cpu_in_the_forward_pass_raises(monkeypatch):
    """The test above sees a tensor of the CPU that a layer makes."""
    real = neuron.MultiStepLeaky.forward
    monkeypatch.setattr(
        neuron.MultiStepLeaky, "forward", lambda self, x: real(self, x) * torch.ones(x.shape[-1])
    )
    with on_cuda("saformer_tiny") as model, pytest.raises(RuntimeError, match=MIXED):
        step(model, images(1, 8))


def test_a_tensor_of_the_cpu_in_the_backward_pass_raises(monkeypatch):
    """The test above sees one that only the backward pass meets."""
    monkeypatch.setattr(memory.Packed, "unpack", lambda self: torch.zeros(self.count))
    with on_cuda("saformer_tiny") as model, pytest.raises(RuntimeError, match=MIXED):
        step(model, images(1, 8))
