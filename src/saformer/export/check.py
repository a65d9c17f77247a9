"""Check what files must keep: the checkpoint's logits, and spikes that are zeros and ones.

B batch, K classes.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import snntorch as snn
import torch
from torch import Tensor, nn

from saformer.generators import apart


@dataclass(frozen=True)
class Agreement:
    """How far two networks are apart on the same inputs."""

    inputs: int
    """Number of inputs."""
    difference: float
    """Largest |difference| of their logits."""
    largest: float
    """Largest |logit| of the first network, to compare the difference with."""
    changed: int
    """Number of inputs that the second network puts into another class."""


def compare(
    first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor], x: Tensor
) -> Agreement:
    """Compare the logits [B, K] of two networks.

    If PyTorch draws the random spikes of rate coding, both networks get the same ones. The state of
    its generators does not change.
    """
    logits = []
    for network in (first, second):
        with torch.no_grad(), apart(0):
            logits.append(network(x))
    a, b = logits
    changed = int((a.argmax(1) != b.argmax(1)).sum())
    return Agreement(len(x), (a - b).abs().max().item(), a.abs().max().item(), changed)


@dataclass(frozen=True)
class Values:
    """Facts about the values that a layer takes or gives."""

    layer: str
    """Dotted name of the layer."""
    binary: float
    """Share of the values that are 0 or 1."""
    whole: bool
    """Whether all are whole numbers, as sums of spikes are."""
    rate: float
    """Share of the values that are not 0."""


def look(network: nn.Module, x: Tensor) -> tuple[list[Values], list[Values]]:
    """Look at what each weight layer takes and each neuron layer gives, in running order.

    Args:
        network: A network whose BatchNorm is folded.
        x: Input of the network.
    """
    taken: list[Values] = []
    given: list[Values] = []

    def taking(name: str) -> Callable[..., None]:
        return lambda layer, args: taken.append(_values(name, args[0]))

    def giving(name: str) -> Callable[..., None]:
        return lambda layer, args, y: given.append(_values(name, y))

    with ExitStack() as undo, torch.no_grad(), apart():
        for name, layer in network.named_modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                undo.callback(layer.register_forward_pre_hook(taking(name)).remove)
            elif isinstance(layer, snn.SpikingNeuron):
                undo.callback(layer.register_forward_hook(giving(name)).remove)
        network(x)
    return taken, given


def _values(name: str, x: Tensor) -> Values:
    binary = ((x == 0) | (x == 1)).float().mean().item()
    return Values(name, binary, bool((x == x.round()).all()), (x != 0).float().mean().item())
