"""What is written as NIR computes what the network does, by three readers; the rest is listed."""

from pathlib import Path

import nir
import numpy as np
import pytest
import torch
from snntorch.import_nir import import_from_nir
from spikingjelly.activation_based.nir_exchange import import_from_nir as import_into_spikingjelly
from torch import nn

from saformer.export.chains import NETWORK, split
from saformer.export.nir import read, to_graph, write_chains
from saformer.export.replay import DT, replay
from saformer.models.fold_batch_norm import fold_batch_norm
from saformer.models.layers import ConvBN, Layers
from saformer.models.neuron import MultiStepLeaky, build_neuron
from saformer.models.settings import Fire, NeuronConfig, Reset

SMALL = ("model.dim=64", "model.depth=1", "model.num_heads=4")
NETWORKS = [
    (),
    ("ablation=sew_residual", "neuron=if"),
    ("ablation=dwc_mlp", "neuron=plif", "attention.threshold=learnable"),
    ("ablation=dwc_series", "model.head_lif=false", "neuron=lif_snntorch"),
    ("ablation=dwconv", "neuron=lif_soft"),
    ("ablation=pooling", "neuron.tau=1.5"),
    ("ablation=sasa_mean",),
    ("ablation=attention_off",),
    ("model=spikingformer_4_384", *SMALL),
    ("model=sdt_2_256", *SMALL),
    ("model=qkformer_4_384", "model.dim=64", "attention.batch_leak=true"),
]
HARD = NeuronConfig(), NeuronConfig(decay_input=False), NeuronConfig(tau=None, decay_input=False)


@pytest.mark.parametrize("overrides", NETWORKS, ids=lambda o: " ".join(o) or "default")
def test_every_layer_is_in_one_list(classifier, overrides):
    """A layer is in one chain, or left out with a reason; no layer is in both, or unknown."""
    backbone = fold_batch_norm(classifier(*overrides).backbone)
    parts = split(backbone)
    layers = {
        name
        for name, part in backbone.named_modules()
        if not any(True for _ in part.children())
        and not isinstance(part, nn.Identity | nn.Sequential | nn.ModuleList)
    }
    chained = [name for chain in parts.chains for name in chain]
    assert len(chained) == len(set(chained))
    assert not parts.left_out.keys() & set(chained)
    containers = parts.left_out.keys() - layers
    assert layers == (set(chained) | parts.left_out.keys()) - containers
    assert {NETWORK} <= containers
    assert not any("unknown" in why for why in parts.left_out.values())
    weights = [n for n, m in backbone.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert set(weights) <= set(chained)


@pytest.mark.parametrize("overrides", NETWORKS, ids=lambda o: " ".join(o) or "default")
def test_files_compute_what_the_layers_do(classifier, bytes_of, overrides):
    """Read again and run by NIR's equations, each file gives what its layers give."""
    made = fold_batch_norm(classifier(*overrides))
    x = made.prepare(bytes_of(made, 4))
    chains = split(made.backbone).chains
    written = write_chains(made.backbone, chains, x, Path())
    assert [graph.layers for graph in written] != [] and len(written) == len(chains)
    assert sorted(path.name for path in Path().glob("*.nir")) == sorted(g.file for g in written)
    for graph in written:
        assert graph.differing < 1e-3, graph
        assert graph.difference < 1e-4 or graph.differing, graph


def test_chains_are_as_long_as_they_can_be(classifier):
    """The stem up to its pooling is one graph, and so is an MLP; what is read twice ends one."""
    backbone = fold_batch_norm(classifier().backbone)
    chains = [list(chain) for chain in split(backbone).chains]
    mlp = [f"blocks.0.mlp.layers.{i}" for i in ("0", "1.conv", "2", "3.conv")]
    stem = [f"stem.stages.{i}" for i in ("0.conv", "1", "2.conv", "3", "4.conv", "5", "6.conv")]
    assert stem in chains and mlp in chains
    assert ["blocks.0.attn.lif_in"] in chains  # query and key read it
    assert ["head_lif", "head"] in chains


def small_chain(config: NeuronConfig) -> tuple[list[nn.Module], torch.Tensor, torch.Tensor]:
    """Convolution, neuron, 1x1 convolution, neuron; random currents, and the spikes they cause."""
    torch.manual_seed(3)
    layers = [nn.Conv2d(2, 6, 3, padding=1), build_neuron(config)]
    layers += [nn.Conv2d(6, 4, 1, stride=2, bias=False), build_neuron(config, v_threshold=0.7)]
    x = y = 4 * torch.randn(7, 5, 2, 6, 6)
    with torch.no_grad():
        layers[2].weight.mul_(8)
        for layer in layers:
            folded = isinstance(layer, nn.Conv2d)
            y = layer(y.flatten(0, 1)).unflatten(0, (7, 5)) if folded else layer(y)
    assert 0.1 < y.mean() < 0.9
    return layers, x, y


def written_chain(layers: list[nn.Module]) -> nir.NIRGraph:
    nir.write("chain.nir", to_graph(layers, (2, 6, 6), [(6, 6, 6)] * 2 + [(4, 3, 3)] * 2))
    return read(Path("chain.nir"))


@pytest.mark.parametrize("config", HARD)
def test_the_equations_of_nir_give_the_same_spikes(config):
    """The replay of a file gives each spike of the layers."""
    layers, x, y = small_chain(config)
    assert torch.equal(replay(written_chain(layers), x), y)


@pytest.mark.parametrize("config", HARD[:2])
def test_snntorch_reads_the_same_spikes(config):
    """snnTorch's own import, which knows no IF, gives each spike of the layers."""
    layers, x, y = small_chain(config)
    network = import_from_nir(written_chain(layers))
    state: dict = {}
    with torch.no_grad():
        steps = [network(current, state)[0] for current in x]
    assert torch.equal(torch.stack(steps), y)


@pytest.mark.parametrize("config", HARD)
def test_spikingjelly_reads_the_same_spikes(config):
    """SpikingJelly's import of NIR gives each spike of the layers."""
    layers, x, y = small_chain(config)
    network = import_into_spikingjelly(written_chain(layers))
    with torch.no_grad():
        steps, state = [], None
        for current in x:
            spikes, state = network(current, state)
            steps.append(spikes)
    assert torch.equal(torch.stack(steps), y)


@pytest.mark.parametrize("fire", Fire)
@pytest.mark.parametrize("decay_input", [True, False])
def test_a_membrane_at_the_threshold(fire, decay_input):
    """Exactly at the threshold ours fires with `ge` and not with `gt`, and so does its file."""
    neuron = build_neuron(NeuronConfig(fire=fire, decay_input=decay_input))
    at = 2.0 if decay_input else 1.0
    x = at * torch.tensor([0.5, 0.75, 0.0, 1.0, 1.0]).view(5, 1, 1)  # membrane 0.5, 1, then ...
    graph = to_graph([neuron], (1,), [(1,)])
    assert torch.equal(replay(graph, x), neuron(x))
    assert neuron(x)[1].item() == (fire is Fire.ge)


@pytest.mark.parametrize("decay_input", [True, False])
def test_the_numbers_of_a_neuron(decay_input):
    """tau/DT is tau, r*DT/tau is 1, and the threshold carries the scale of the input."""
    config = NeuronConfig(tau=1.6, v_threshold=0.8, decay_input=decay_input, fire=Fire.gt)
    node = to_graph([build_neuron(config)], (2, 3), [(2, 3)]).nodes["lif"]
    assert isinstance(node, nir.LIF) and node.tau.shape == (2, 3)
    np.testing.assert_allclose(node.tau / DT, 1.6, rtol=1e-5)
    np.testing.assert_allclose(node.r * DT / node.tau, 1, rtol=1e-5)
    np.testing.assert_allclose(node.v_threshold, 0.8 * (1.6 if decay_input else 1), rtol=1e-6)
    assert not node.v_leak.any() and not node.v_reset.any()


def test_neurons_that_nir_lacks(classifier):
    """A reset that subtracts, or none, is left out with the reason, and so is a dead neuron."""
    for reset in (Reset.soft, Reset.none):
        made = classifier(f"neuron.reset={reset.value}")
        left_out = split(fold_batch_norm(made.backbone)).left_out
        assert "resets to a value" in left_out["blocks.0.mlp.layers.2"]
    made = classifier("neuron=plif")
    with torch.no_grad():
        made.backbone.head_lif.beta.fill_(1.5)
    left_out = split(fold_batch_norm(made.backbone)).left_out
    assert "no weight" in left_out["head_lif"] and "blocks.0.mlp.layers.2" not in left_out


class Twice(MultiStepLeaky):
    """A neuron of a user, with a layer inside."""

    def __init__(self) -> None:
        super().__init__(beta=0.5)
        self.inner = nn.Conv2d(2, 2, 1)


def test_what_is_not_known_ends_a_chain():
    """A neuron of a user is left out with all inside it, and never skipped between two layers."""
    other = nn.Module()
    other.inside = nn.Conv2d(2, 2, 1)
    row = Layers(ConvBN(2, 2, 1), Twice(), ConvBN(2, 2, 1), nn.Tanh(), nn.Conv2d(2, 2, 1), other)
    parts = split(fold_batch_norm(row))
    assert [list(chain) for chain in parts.chains] == [["0.conv"], ["2.conv"], ["4"], ["5.inside"]]
    assert parts.left_out == {
        "1": "a neuron of your own, of which NIR knows nothing",
        "3": "unknown to this export",
    }


def test_a_neuron_over_the_batch_is_left_out(classifier):
    """QKFormer's leak over the batch is no neuron over time, and is named."""
    words = ("model=qkformer_4_384", "model.dim=64", "attention.batch_leak=true")
    left_out = split(fold_batch_norm(classifier(*words).backbone)).left_out
    assert any("over the batch" in why for why in left_out.values())
