"""Record firing rates, attention and spikes of a network on a few images, with hooks.

The recorder finds neurons, masks and products by type, as `saformer.energy` does, so it works for
any network. Hooks reduce tensors immediately, so that a recording is small.

T timesteps, B images, C channels, H W height and width, N = H*W tokens, h heads, d channels of a
head, K classes.
"""

import math
import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from saformer.energy.axes import fold
from saformer.energy.counter import NEURONS
from saformer.generators import apart
from saformer.models.attention.aggregation import CHANNELS, SpikeAggregation
from saformer.models.attention.ssa import SSA
from saformer.models.spike_ops import SpikeMask

SAMPLED = 24  # neurons of a layer whose spikes are recorded
Hook = Callable[[nn.Module, Any, Any], None]


class Kind(str, Enum):
    """What an attention computes with tokens, which decides what is drawn over the image."""

    tokens = "tokens"
    channels = "channels"
    products = "products"


@dataclass(frozen=True)
class Layer:
    """One neuron layer."""

    name: str
    """Dotted name, as in the energy report."""
    rates: Tensor
    """Spikes per neuron and step of each image [B]."""
    maps: Tensor | None
    """Mean rate over channels and T at each place [B, H, W]; None for a layer without places."""
    sampled: Tensor
    """Spikes of randomly drawn neurons [T, B, n]."""


@dataclass(frozen=True)
class Attention:
    """One use of tokens by an attention; an attention with two masks gives two of these."""

    name: str
    """Dotted name of the attention."""
    kind: Kind
    """A mask over tokens, a mask over channels, or products of queries and keys."""
    maps: Tensor
    """Map over the image [B, h, H, W]. For `tokens`: share of steps in which the token is open. For
    `channels`: spikes that pass the mask, per channel and step. For `products`: spikes that a
    token's key shares with a query, mean over queries and steps."""
    masks: Tensor | None = None
    """For `channels`: the mask itself [B, h, d, T]; otherwise None."""


@dataclass
class Recording:
    """Layers and attentions of a network in the order in which they ran."""

    layers: list[Layer] = field(default_factory=list)
    attentions: list[Attention] = field(default_factory=list)
    logits: Tensor = field(default_factory=lambda: torch.zeros(0))
    """Mean over T [B, K]."""


def record(network: nn.Module, images: Tensor) -> Recording:
    """Run some images through a network in evaluation mode and record its activity.

    All hooks are removed at the end, and the network's state does not change. The random spikes of
    rate coding are the same in every call, and the states of the random generators are restored.

    Args:
        network: Its output is logits [T, B, K].
        images: Normalised images [B, C, H, W] or event frames [B, T, 2, H, W].

    Raises:
        EnergyError: The output of a neuron layer does not fold into T and B.
    """
    assert not network.training, "a recording in training mode would change BatchNorm's statistics"
    recorder = _Recorder(len(images), getattr(network, "timesteps", None))
    with ExitStack() as undo, torch.no_grad(), apart(0):
        for module, hook in recorder.hooks(network):
            undo.callback(module.register_forward_hook(hook).remove)
        # Call `forward` directly: a compiled network then runs eagerly, and hooks do not recompile.
        logits = network.forward(images)
    recorder.found.logits = logits.float().mean(0).cpu()
    return recorder.found


class _Recorder:
    """Hooks that fill a recording.

    Args:
        samples: Images B.
        timesteps: Timesteps T, if known.
    """

    def __init__(self, samples: int, timesteps: int | None) -> None:
        self.found = Recording()
        self._samples, self._timesteps = samples, timesteps
        self._mask: tuple[SpikeAggregation, Tensor] | None = None  # last mask and its module
        self._projected: dict[nn.Module, Tensor] = {}

    def hooks(self, network: nn.Module) -> list[tuple[nn.Module, Hook]]:
        """Choose a hook for each module that needs one."""
        chosen: list[tuple[nn.Module, Hook]] = []
        of_masks: set[nn.Module] = set()
        for name, module in network.named_modules():
            name = name.replace("_orig_mod.", "")
            if isinstance(module, SpikeAggregation):
                of_masks.update(module.modules())
                chosen.append((module, self._aggregated))
            elif isinstance(module, SpikeMask):
                chosen.append((module, self._gated(name.rpartition(".")[0])))
            elif isinstance(module, SSA):
                chosen += [(part, self._projection) for part in (module.q, module.k)]
                chosen.append((module, self._product(name)))
            elif isinstance(module, NEURONS):
                chosen.append((module, self._fired(name, has_places=module not in of_masks)))
        return chosen

    def _fired(self, name: str, has_places: bool) -> Hook:
        def hook(module: nn.Module, args: Any, out: Any) -> None:
            spikes = out if isinstance(out, Tensor) else out[0]
            x = fold(spikes, 1, self._samples, self._timesteps).float()
            places = has_places and x.ndim == 5
            neurons = x.flatten(2)
            count = neurons.shape[2]
            chosen = sorted(random.Random(name).sample(range(count), min(SAMPLED, count)))
            self.found.layers.append(
                Layer(
                    name=name,
                    rates=neurons.mean((0, 2)).cpu(),
                    maps=x.mean((0, 2)).cpu() if places else None,
                    sampled=neurons[..., chosen].cpu(),
                )
            )

        return hook

    def _aggregated(self, module: nn.Module, args: Any, out: Any) -> None:
        assert isinstance(module, SpikeAggregation)
        self._mask = module, out

    def _gated(self, name: str) -> Hook:
        def hook(module: nn.Module, args: Any, out: Any) -> None:
            if self._mask is None or args[0] is not self._mask[1]:
                return  # this module is an AND of two spike tensors; no mask gates them
            by, mask = self._mask[0], self._mask[1].float()
            if by.dim == CHANNELS:
                open_ = mask.squeeze(CHANNELS).mean(0)
                self.found.attentions.append(Attention(name, Kind.tokens, _square(open_)))
                return
            passed = _square(out.float().mean((0, CHANNELS)))
            strips = mask.squeeze(-1).permute(1, 2, 3, 0).cpu()
            self.found.attentions.append(Attention(name, Kind.channels, passed, strips))

        return hook

    def _projection(self, module: nn.Module, args: Any, out: Any) -> None:
        self._projected[module] = out

    def _product(self, name: str) -> Hook:
        def hook(module: nn.Module, args: Any, out: Any) -> None:
            assert isinstance(module, SSA)
            q, k = (
                module.heads(self._projected.pop(part)).float() for part in (module.q, module.k)
            )
            # The mean over queries of Q K^T. It needs no N x N matrix, which an attention in
            # the order Q (K^T V) never computes.
            received = (q.mean(-1, keepdim=True) * k).sum(-2).mean(0)
            self.found.attentions.append(Attention(name, Kind.products, _square(received)))

        return hook


def _square(x: Tensor) -> Tensor:
    """Unfold tokens [B, h, N] -> [B, h, H, W] of a square image."""
    square: Tensor = x.unflatten(-1, (math.isqrt(x.shape[-1]), -1))
    return square.cpu()
