"""Which layers of a network NIR can express, and in which chains they follow each other.

NIR (Nature Communications 15, 8122, 2024) is a graph of layers whose edges carry a value at each
moment. It has convolutions, linear layers, sum and average pooling and neurons, whose membrane
takes one value when it fires. It has no product of two inputs, no maximum, and no sum along an
axis, so an attention does not fit into it; what lies between is written as chains.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import snntorch as snn
from torch import nn

from saformer.models.attention.aggregation import SpikeAggregation
from saformer.models.attention.branch import AttentionBranch
from saformer.models.attention.ssa import OverBatch
from saformer.models.layers import ConvBN, Layers, MaxPool
from saformer.models.neuron import MultiStepLeaky
from saformer.models.settings import Reset
from saformer.models.spike_ops import ResidualAdd, SpikeMask, SpikeMatMul, SpikeMax, SpikeSum
from saformer.models.transformer import SAFormer

NETWORK = "network"
CONTAINER = "its layers are listed by themselves"
# Of modules that are one operation.
REASONS: dict[type[nn.Module], str] = {
    nn.MaxPool2d: "NIR pools by sums and averages, not by the maximum",
    SpikeMatMul: "NIR has no product of two inputs",
    SpikeMask: "NIR has no product of two inputs",
    SpikeSum: "NIR has no sum along an axis",
    SpikeMax: "NIR has no maximum",
    ResidualAdd: "NIR adds where two edges meet, and these come out of two graphs",
}
# Of modules that compute something themselves, around the layers inside them.
AROUND: dict[type[nn.Module], str] = {
    SAFormer: "shows an image T times, and takes the mean over places before the head",
    AttentionBranch: "splits and joins heads, scales products, adds the DWC beside it",
    SpikeAggregation: "scales the sum to a mean",
}
Chain = dict[str, nn.Module]
"""Layers by their dotted names: each feeds the next, and nothing else reads what it gives."""


@dataclass(frozen=True)
class Parts:
    """What becomes of the layers of a network; each of them is in one of the two."""

    chains: list[Chain]
    """What NIR can express, in the order in which the network has it."""
    left_out: dict[str, str]
    """Dotted name of what NIR cannot express, and why; the network itself is `NETWORK`."""


def split(model: nn.Module) -> Parts:
    """Find the chains of a network.

    Args:
        model: A network whose BatchNorm is folded (`saformer.models.fold_batch_norm`).
    """
    names = {module: name for name, module in model.named_modules()}
    over_batch = {m.lif for m in names if isinstance(m, OverBatch)}
    chains: list[Chain] = []
    left_out: dict[str, str] = {}
    seen: set[nn.Module] = set()
    for module, name in names.items():  # parents first, so that a layer is met in its longest row
        if around := _first(AROUND, module):
            left_out[name or NETWORK] = around
        chain: Chain = {}
        for layer in _row(module):
            if isinstance(layer, nn.Identity):
                continue
            why = "it runs over the batch as over time" if layer in over_batch else _why_not(layer)
            if layer in seen or why:
                chains.append(chain)
                chain = {}
            else:
                chain[names[layer]] = layer
            if layer not in seen and why != CONTAINER:
                seen.update(layer.modules())
                left_out |= {names[layer]: why} if why else {}
        chains.append(chain)
    place = {name: i for i, name in enumerate(names.values())}
    return Parts(sorted(filter(None, chains), key=lambda chain: place[next(iter(chain))]), left_out)


def _row(module: nn.Module) -> Iterator[nn.Module]:
    """Modules that follow each other in this one; what is no row of others is a row of itself."""
    if isinstance(module, Layers | ConvBN | MaxPool | OverBatch):
        parts = list(module.children())
    elif isinstance(module, AttentionBranch):
        parts = [module.proj, *(module.dwc_series or ()), module.lif_out]
    elif isinstance(module, SAFormer):
        parts = [module.head_lif, module.head]
    else:
        yield module
        return
    for part in parts:
        yield from _row(part)


def _why_not(layer: nn.Module) -> str:
    """Why NIR cannot express a layer, or nothing."""
    if isinstance(layer, nn.Conv2d | nn.Linear):
        return ""
    if type(layer) is MultiStepLeaky:  # a subclass may do otherwise
        return _why_no_neuron(layer)
    if isinstance(layer, snn.SpikingNeuron):
        return "a neuron of your own, of which NIR knows nothing"
    is_container = isinstance(layer, nn.ModuleList) or any(True for _ in layer.children())
    return _first(REASONS, layer) or (CONTAINER if is_container else "unknown to this export")


def _first(table: dict[type[nn.Module], str], module: nn.Module) -> str:
    return next((text for kind, text in table.items() if isinstance(module, kind)), "")


def _why_no_neuron(neuron: MultiStepLeaky) -> str:
    if neuron.loop_only:
        return f"NIR's neuron lacks {neuron.loop_only}"
    if neuron.law.reset is not Reset.hard:
        return "NIR's neuron resets to a value; it neither subtracts nor goes on"
    if neuron.decay_input and neuron.beta.item() >= 1:
        return "its learned decay has reached 1, so that its input has no weight"
    return ""
