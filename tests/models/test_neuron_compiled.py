"""Many kinds of compiled neurons in one process, as a sweep has."""

import functools

import pytest
import torch

from saformer.models import lif_kernels, neuron
from saformer.models.neuron import MultiStepLeaky
from saformer.models.settings import Backend


@pytest.fixture
def graphs(monkeypatch):
    """The kernels traced but not compiled, which is fast; gives the graphs that were made."""
    made = []

    def backend(graph, inputs):
        made.append(graph)
        return graph.forward

    @functools.cache
    def traced(name):
        fused = getattr(lif_kernels, f"{name}_fused")
        return torch.compile(fused, backend=backend, dynamic=True, fullgraph=True)

    torch._dynamo.reset()
    monkeypatch.setattr(neuron, "_compile", traced)
    monkeypatch.setattr(neuron, "_compiler_failed", False)
    neuron._warn_once.cache_clear()
    yield made
    neuron._warn_once.cache_clear()
    torch._dynamo.reset()


def layers(**options):
    """The same neuron on both backends."""
    both = (Backend.compile, Backend.torch)
    return [MultiStepLeaky(0.5, reset_mechanism="zero", backend=b, **options) for b in both]


@torch._dynamo.config.patch(recompile_limit=4)
def test_a_neuron_that_the_compiler_has_no_room_for_runs_eagerly(graphs, caplog):
    """Past dynamo's limit a neuron gives the same spikes and gradients, and says so once."""
    compiled, eager = layers()
    for T in range(1, 8):
        x = torch.randn(T, 3, 5, requires_grad=True)
        spikes, expected = compiled(x), eager(x)
        assert torch.equal(spikes, expected)
        gradients = (torch.autograd.grad(y, x, torch.ones_like(y))[0] for y in (spikes, expected))
        torch.testing.assert_close(*gradients)
    ours = [one.getMessage() for one in caplog.records if one.name == neuron.__name__]
    words = "too many kinds of neurons to compile: further ones run on backend torch"
    assert ours.count(words) == 1
    assert not neuron._compiler_failed
    assert len(graphs) == 8  # four forward, four backward


def test_training_and_evaluation_share_a_graph(graphs):
    """Whether a gradient is asked for, of the input or of the constants, compiles nothing anew."""
    plain, _ = layers()
    learned, _ = layers(learn_beta=True, learn_threshold=True)
    for layer in (plain, learned):
        layer(torch.randn(3, 4, 5, requires_grad=True))
        with torch.no_grad():
            layer(torch.randn(3, 4, 5))
    assert len(graphs) == 1


@torch._dynamo.config.patch(recompile_limit=8, accumulated_recompile_limit=256)
def test_there_is_room_for_a_sweep():
    """Runs of many T in one process stay within the limits that compiling sets."""
    config = torch._dynamo.config
    neuron._compile.__wrapped__("forward")
    assert (config.recompile_limit, config.accumulated_recompile_limit) == (1024, 4096)
