"""The networks whose training steps are compared, all of one shape: ours, its peers, its floors.

T timesteps, B batch, C channels, H W height and width, K classes.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import snntorch as snn
import torch
from snntorch import surrogate
from spikingjelly.activation_based import functional
from spikingjelly.activation_based.model.spikformer import Spikformer
from torch import Tensor, nn

from saformer.config.check import check
from saformer.config.overrides import compose
from saformer.config.schema import Config
from saformer.create import build_backbone
from saformer.models.neuron import MultiStepLeaky
from saformer.models.settings import Backend, MemoryConfig, Recompute, SpikeStore


@dataclass(kw_only=True)
class Case:
    """What is trained, and how; plain values, since a process of its own measures memory."""

    timesteps: int
    """Timesteps T."""
    batch: int
    """Images or recordings B of a step."""
    events: bool = False
    """Frames of events [B, T, 2, H, W], which differ from step to step, instead of images."""
    bf16: bool = False
    """Autocast to bfloat16."""
    threads: int = 2
    """Threads of the CPU."""
    settings: list[str] = field(default_factory=list)
    """Further settings of the network, as for train.py."""

    @property
    def channels(self) -> int:
        return 2 if self.events else 3


class Network(NamedTuple):
    """A network that maps a batch to logits [T, B, K]."""

    module: nn.Module
    between: Callable[[], object] = lambda: None
    """What it needs done after a step."""


def device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def now(x: Tensor) -> float:
    """Seconds on the clock, once all that was queued on the device of `x` is done."""
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter()


def composed(case: Case, model: str = "spikformer_4_384") -> Config:
    """The configuration of a training on CIFAR-10."""
    words = ["experiment=cifar10_4_384_t4", f"model={model}", f"timesteps={case.timesteps}"]
    return check(compose([*words, *case.settings]))


def ours(
    case: Case,
    model: str = "spikformer_4_384",
    backend: Backend = Backend.torch,
    memory: MemoryConfig | None = None,
    whole: bool = False,
) -> Network:
    """One of our networks, compiled as a whole if asked for."""
    config = composed(case, model)
    config.neuron.backend = backend
    config.dataset.in_channels = case.channels
    config.memory = memory or config.memory
    module = build_backbone(config)
    if whole:
        module.compile()
    return Network(module)


def with_neurons(case: Case, kind: Callable[[MultiStepLeaky], nn.Module]) -> Network:
    """Our network with each of its neurons replaced."""
    network = ours(case)
    for parent in list(network.module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, MultiStepLeaky):
                setattr(parent, name, kind(child))
    return network


def stepped(leaky: snn.Leaky, x: Tensor) -> Tensor:
    """snn.Leaky as its tutorials use it: one step after the other, x[t] each."""
    mem = leaky.reset_mem()
    spikes = []
    for t in range(len(x)):
        spike, mem = leaky(x[t], mem)
        spikes.append(spike)
    return torch.stack(spikes)


class StockLoop(nn.Module):
    """snn.Leaky in a network, stepped over time.

    Instead of scaling the input by 1/tau, which would cost it a pass, its threshold is tau times as
    high and its surrogate as much flatter: the same spikes, but for ties, and the same gradients.

    Args:
        neuron: Ours, which it is to equal.
    """

    def __init__(self, neuron: MultiStepLeaky) -> None:
        super().__init__()
        tau = 1 / (1 - neuron.beta.item()) if neuron.decay_input else 1.0
        self.leaky = snn.Leaky(
            beta=neuron.beta.item(),
            threshold=tau * neuron.threshold.item(),
            spike_grad=surrogate.sigmoid(slope=neuron.law.alpha / tau),
            reset_mechanism="zero",
        )

    def forward(self, x: Tensor) -> Tensor:
        return stepped(self.leaky, x)


class SpikingJelly(nn.Module):
    """SpikingJelly's own Spikformer in the sizes of ours, all steps at once (step_mode "m").

    Its neurons have the sigmoid surrogate of ours by default. Its convolutions have no bias.

    Args:
        case: What is trained.
    """

    def __init__(self, case: Case) -> None:
        super().__init__()
        config = composed(case)
        side = config.dataset.image_size
        self.net = Spikformer(
            T=case.timesteps,
            in_channels=case.channels,
            img_size_h=side,
            img_size_w=side,
            patch_size=config.model.patch_size,
            num_classes=config.dataset.num_classes,
            embed_dims=config.model.dim,
            num_heads=config.model.num_heads,
            mlp_ratio=config.model.mlp_ratio,
            depths=config.model.depth,
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x.transpose(0, 1) if x.ndim == 5 else x)
        return y


def spikingjelly(case: Case, **compiler: object) -> Network:
    """SpikingJelly's network, compiled if there are arguments of the compiler."""
    module = SpikingJelly(case)
    if compiler:
        module.net.compile(**compiler)
    return Network(module, partial(functional.reset_net, module.net))


class ViT(nn.Module):
    """A plain vision transformer of the same width, depth, heads and tokens: no time, no spikes.

    Patches come by one convolution and not by a stem, as in arXiv 2010.11929.

    Args:
        case: What is trained.
        all_steps: Take an image T times, or each of T frames, instead of one.
    """

    def __init__(self, case: Case, all_steps: bool) -> None:
        super().__init__()
        config = composed(case)
        model, side = config.model, config.dataset.image_size
        self.steps = case.timesteps if all_steps else 1
        self.patches = nn.Conv2d(case.channels, model.dim, model.patch_size, model.patch_size)
        self.position = nn.Parameter(torch.zeros((side // model.patch_size) ** 2, model.dim))
        layer = nn.TransformerEncoderLayer(
            model.dim,
            model.num_heads,
            int(model.mlp_ratio * model.dim),
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.encoder = nn.TransformerEncoder(layer, model.depth, enable_nested_tensor=False)
        self.head = nn.Linear(model.dim, config.dataset.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        steps = x.transpose(0, 1) if x.ndim == 5 else x.expand(self.steps, *x.shape)
        folded = steps[: self.steps].flatten(0, 1)
        tokens = self.patches(folded).flatten(2).transpose(1, 2) + self.position
        y: Tensor = self.head(self.encoder(tokens).mean(1))
        y = y.unflatten(0, (self.steps, -1))
        return y


@dataclass(frozen=True)
class Entry:
    """A row of the tables."""

    label: str
    build: Callable[[Case], Network]


PLAIN = MemoryConfig(spikes=SpikeStore.float)
LEAN = MemoryConfig(recompute=Recompute.neurons)
NETWORKS: dict[str, Entry] = {
    "ours": Entry("ours, neurons on torch", ours),
    "ours-compile": Entry("ours, neurons on compile", partial(ours, backend=Backend.compile)),
    "ours-compile-whole": Entry("ours, compile=true", partial(ours, whole=True)),
    "ours-plain": Entry("ours, spikes kept as floats", partial(ours, memory=PLAIN)),
    "ours-lean": Entry("ours, neurons recomputed", partial(ours, memory=LEAN)),
    "sj": Entry("SpikingJelly", spikingjelly),
    "sj-compile": Entry("SpikingJelly, compiled", partial(spikingjelly, dynamic=False)),
    "sj-compile-layout": Entry(
        "SpikingJelly, compiled, its own layout",
        partial(spikingjelly, dynamic=False, options={"layout_optimization": False}),
    ),
    "snn-loop": Entry(
        "ours, neurons as a loop of snn.Leaky", partial(with_neurons, kind=StockLoop)
    ),
    "identity": Entry(
        "ours, neurons left out", partial(with_neurons, kind=lambda neuron: nn.Identity())
    ),
    "vit": Entry("plain ViT, each image once", lambda case: Network(ViT(case, False))),
    "vit-t": Entry("plain ViT, each image T times", lambda case: Network(ViT(case, True))),
    "saformer": Entry("ours, saformer_4_384", partial(ours, model="saformer_4_384")),
}
"""By their names on the command line; the first two are what the others are compared with."""
