"""Chains of layers as NIR graphs, written by snnTorch's export and run again as they were written.

A neuron of ours becomes a stock `snn.Leaky` of the same spikes, since that is what snnTorch can
export: it knows no scale of the input, so the threshold is divided by it, and fires only above the
threshold, so the threshold is the next smaller number where ours fires at it.

T timesteps, B batch, C channels, H W height and width.
"""

import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import snntorch as snn
import torch
from torch import Tensor, nn

from saformer.export.chains import Chain
from saformer.export.replay import DT, replay
from saformer.models.neuron import MultiStepLeaky
from saformer.models.settings import Fire

Compare = Callable[[Chain, Tensor, Tensor], None]


def missing() -> list[str]:
    """Packages that writing NIR takes and that are not installed."""
    return [name for name in ("nir", "nirtorch") if find_spec(name) is None]


@dataclass(frozen=True)
class Written:
    """One file, and what its graph gives beside the layers it was made of."""

    file: str
    """Name of the file."""
    layers: list[str]
    """Dotted names of the layers, in the order of the graph."""
    input: list[int]
    """Shape that the graph takes in a step."""
    output: list[int]
    """Shape that it gives."""
    difference: float
    """Largest |difference| of what it gives; of spikes, 1 if one is another."""
    differing: float
    """Share of what it gives that differs by more than 0.001."""


def write_chains(model: nn.Module, chains: list[Chain], x: Tensor, folder: Path) -> list[Written]:
    """Write each chain to a file named after its first layer, read it, and run it beside the model.

    Args:
        model: The network that the chains are of: [B, ...] to [T, B, K].
        chains: As `split` finds them.
        x: Input of the network, on which the graphs are compared.
        folder: A folder without such files.
    """
    import nir

    shapes: dict[str, tuple[Sequence[int], Sequence[int]]] = {}
    written: list[Written] = []

    def note(chain: Chain, given: Tensor, gives: Tensor) -> None:
        (name,) = chain
        shapes[name] = given.shape[2:], gives.shape[2:]

    def compare(chain: Chain, given: Tensor, gives: Tensor) -> None:
        path = _file(folder, chain)
        off = (replay(read(path), given) - gives).abs()
        share = (off > 1e-3).float().mean().item()
        sizes = list(given.shape[2:]), list(gives.shape[2:])
        written.append(Written(path.name, list(chain), *sizes, off.max().item(), share))

    _watch(model, [{name: layer} for chain in chains for name, layer in chain.items()], x, note)
    for chain in chains:
        first = shapes[next(iter(chain))][0]
        graph = to_graph(list(chain.values()), first, [shapes[name][1] for name in chain])
        nir.write(_file(folder, chain), graph)
    _watch(model, chains, x, compare)
    return written


def _file(folder: Path, chain: Chain) -> Path:
    return folder / f"{next(iter(chain))}.nir"


def _watch(model: nn.Module, chains: list[Chain], x: Tensor, told: Compare) -> None:
    """Run a network, and tell of each chain what it takes and gives, both [T, B, ...]."""
    taken: dict[nn.Module, Tensor] = {}
    steps = (int(model.timesteps), len(x))  # type: ignore[arg-type]

    def unfold(layer: nn.Module, y: Tensor) -> Tensor:
        return y.unflatten(0, steps) if isinstance(layer, nn.Conv2d) else y

    def take(layer: nn.Module, args: tuple[Tensor]) -> None:
        taken[layer] = unfold(layer, args[0])

    def give(chain: Chain) -> Callable[..., None]:
        first = next(iter(chain.values()))
        return lambda layer, args, y: told(chain, taken.pop(first), unfold(layer, y))

    with ExitStack() as undo, torch.no_grad():
        for chain in chains:
            layers = list(chain.values())
            undo.callback(layers[0].register_forward_pre_hook(take).remove)
            undo.callback(layers[-1].register_forward_hook(give(chain)).remove)
        model(x)


def read(path: Path) -> Any:
    """The graph of a file.

    Its types are not checked: nir 1.0 takes the channels of one group for those of the input.
    """
    import nir

    return nir.read(path, type_check=False)


def to_graph(
    layers: Sequence[nn.Module], shape: Sequence[int], shapes: Sequence[Sequence[int]]
) -> Any:
    """A `nir.NIRGraph` of layers that follow each other.

    Args:
        layers: nn.Conv2d, nn.Linear and `MultiStepLeaky`.
        shape: What the first takes in a step, without the batch.
        shapes: What each of them gives.
    """
    import nir
    from snntorch.export_nir import export_to_nir

    stock = [
        _stock(layer, gives) if isinstance(layer, MultiStepLeaky) else layer
        for layer, gives in zip(layers, shapes, strict=True)
    ]
    # snnTorch's export loses a graph of one layer: a neuron follows, and its node is left off.
    stock.append(_leaky(0.5, 1.0, shapes[-1]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nirtorch calls what snnTorch uses of it outdated
        sample = torch.zeros(1, *shape)
        exported = export_to_nir(nn.Sequential(*stock), sample, ignore_dims=[0])
    nodes = [exported.nodes[str(i)] for i in range(len(layers))]
    for i, layer in enumerate(layers):
        if isinstance(layer, MultiStepLeaky) and layer.beta.item() >= 1:
            # snnTorch's export would give it an infinite time constant; NIR has a node for it.
            level = np.full(tuple(shapes[i]), _threshold(layer, 1.0), np.float32)
            nodes[i] = nir.IF(r=np.full_like(level, 1 / DT), v_threshold=level)
    return nir.NIRGraph.from_list(*nodes)


def _stock(neuron: MultiStepLeaky, shape: Sequence[int]) -> snn.Leaky:
    """snnTorch's own neuron of the same spikes; without decay, one to stand in its place."""
    beta = neuron.beta.clamp(0, 1)
    if beta == 1:
        return _leaky(0.5, 1.0, shape)
    scale = (1 - beta).item() if neuron.decay_input else 1.0
    return _leaky(beta.item(), _threshold(neuron, scale), shape)


def _threshold(neuron: MultiStepLeaky, scale: float) -> float:
    """Where a neuron that fires only above its threshold must have it, at an input not scaled."""
    threshold = neuron.threshold.detach() / scale
    if neuron.law.fire is Fire.ge:
        threshold = torch.nextafter(threshold, torch.tensor(-torch.inf))
    return threshold.item()


def _leaky(beta: float, threshold: float, shape: Sequence[int]) -> snn.Leaky:
    """A value for each neuron, as NIR wants it."""
    neuron = snn.Leaky(
        beta=torch.full(tuple(shape), beta),
        threshold=torch.full(tuple(shape), threshold),
        reset_mechanism="zero",
        reset_delay=False,
        init_hidden=True,
    )
    snn.SpikingNeuron.instances.remove(neuron)  # the list would keep it alive
    return neuron
