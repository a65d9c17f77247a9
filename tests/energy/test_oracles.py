"""Other people's counters agree with ours where they count the same."""

import torch
from nets import Chain, T, TinySSA, frames, images
from spikingjelly.activation_based.op_counter import DispatchCounterMode, SynOpCounter
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from saformer.energy import Counter, LayerTable, apply, count, preset
from saformer.energy.conventions import WEIGHTED
from saformer.energy.table import Kind, Values
from saformer.models.neuron import MultiStepLeaky


def spiking_layers() -> nn.Module:
    """Convolutions and linear layers on spikes, of many geometries, and no attention."""

    def neuron() -> nn.Module:
        return nn.Sequential(
            nn.Unflatten(0, (T, -1)), MultiStepLeaky(beta=0.5, threshold=0.2), nn.Flatten(0, 1)
        )

    torch.manual_seed(0)
    return Chain(
        *(nn.Conv2d(3, 8, 3, padding=1), neuron()),
        *(nn.Conv2d(8, 16, 3, 2, padding=1, bias=False), neuron()),
        *(nn.Conv2d(16, 16, 5, padding=2, groups=16), neuron()),
        *(nn.Conv2d(16, 12, 3, padding=2, dilation=2, groups=4), neuron()),
        *(nn.Conv2d(12, 8, (1, 3), stride=(2, 1)), neuron()),
        *(nn.Flatten(), nn.Linear(8 * 4 * 6, 32), neuron(), nn.Linear(32, 10)),
        timesteps=T,
    ).eval()


def events(model: nn.Module) -> tuple[torch.Tensor, LayerTable]:
    """Spikes [T*B, C, H, W] and the table that they give."""
    x = frames(4).transpose(0, 1).flatten(0, 1)
    counter = Counter(model, T)
    with torch.no_grad(), counter.counting(4):
        model(x)
    table = counter.table()
    rates = [layer.rate for layer in table.of(*WEIGHTED)]
    assert all(0.02 < rate < 0.9 for rate in rates), "a silent layer would prove nothing"
    return x, table


def test_spikingjelly_counts_the_same_on_spikes():
    """SpikingJelly's SynOpCounter, which sees operations instead of layers, finds our total."""
    model = spiking_layers()
    x, table = events(model)
    counter = SynOpCounter()
    with torch.no_grad(), DispatchCounterMode([counter]):
        model(x)
    assert counter.get_total() == sum(layer.ops for layer in table.of(*WEIGHTED))


def test_spikingjelly_counts_the_same_products_of_spikes():
    """It also finds our pairs of q k^T; products with whole numbers it counts in another way."""
    model, x = TinySSA(), images(4)
    table = count(model, x)
    counter = SynOpCounter()
    with torch.no_grad(), DispatchCounterMode([counter]):
        model(x)
    counts = counter.get_counts()
    layers = {layer.name: layer for layer in table.layers}
    for name in ("conv2", "depthwise", "conv3", "q", "k", "v", "product1", "proj", "fc2"):
        assert sum(counts[f"TinySSA.{name}"].values()) == layers[name].ops, name


def test_flop_counter_counts_the_same_layers():
    """torch's FlopCounterMode has our dense number for each layer, twice (2 per MAC)."""
    model, x = TinySSA(), images(4)
    table = count(model, x)
    with torch.no_grad(), FlopCounterMode(display=False) as flops:
        model(x)
    counts = flops.get_flop_counts()
    layers = table.of(*WEIGHTED, Kind.matmul)
    assert {layer.kind for layer in layers} == {*WEIGHTED, Kind.matmul}
    for layer in layers:
        assert sum(counts[f"TinySSA.{layer.name}"].values()) == 2 * layer.dense_padded, layer.name


def test_neurobench_counts_the_same():
    """NeuroBench's effective ACs and MACs are those of our convention of its name."""
    from neurobench.metrics import workload
    from neurobench.models import TorchModel
    from snntorch import SpikingNeuron

    model = spiking_layers()
    x, table = events(model)
    wrapped = TorchModel(model)
    wrapped.add_activation_module(SpikingNeuron)
    wrapped.register_hooks()
    with torch.no_grad():
        predictions = wrapped(x)
        found = workload.SynapticOperations()(wrapped, predictions, (x[:4], None))
    wrapped.cleanup_hooks()
    ours = apply(table, preset("neurobench"))
    assert all(layer.values is Values.binary for layer in table.of(*WEIGHTED))
    assert found["Effective_ACs"] == ours.acs > 0
    assert found["Effective_MACs"] == ours.macs == 0
