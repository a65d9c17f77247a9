"""One small network for each model file of the originals, and what builds the same of ours."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import reference_nets as nets
import torch
from snntorch import Leaky
from spikingjelly.activation_based.neuron import LIFNode
from torch import Tensor, nn

from saformer.config.check import to_dict
from saformer.training.module import SAFormerModule


class Case(NamedTuple):
    """A network of an original, and the settings of ours."""

    net: Callable[..., nn.Module]
    sizes: dict
    settings: tuple[str, ...]
    side: int = 32

    @property
    def overrides(self) -> tuple[str, ...]:
        dim, depth, heads = (self.sizes[name] for name in ("dim", "depth", "heads"))
        return (
            *self.settings,
            *(f"model.dim={dim}", f"model.depth={depth}", f"model.num_heads={heads}"),
            f"dataset.image_size={self.side}",
        )


def sizes(heads: int, classes: int, depth: int = 2, dim: int = 64, **others) -> dict:
    return {"dim": dim, "depth": depth, "heads": heads, "classes": classes, **others}


EVENTS = {"channels": 2, "pools": "1111", "names": "proj"}
CASES = {
    "spikformer cifar10": Case(
        nets.SpikformerCifar, sizes(4, 10), ("model=spikformer_4_384", "dataset=cifar10")
    ),
    "spikformer first": Case(
        nets.SpikformerFirst,
        sizes(4, 10),
        ("model=spikformer_4_384", "attention=ssa", "dataset=cifar10"),
    ),
    "spikformer cifar10dvs": Case(
        nets.SpikformerEvents,
        sizes(16, 10, channels=2, side=64),
        ("model=spikformer_2_256_events", "dataset=cifar10_dvs"),
        64,
    ),
    "spikformer imagenet": Case(
        nets.SpikformerImagenet, sizes(8, 1000), ("model=spikformer_8_512", "dataset=imagenet"), 64
    ),
    "spikingformer cifar10": Case(
        nets.Spikingformer, sizes(4, 10), ("model=spikingformer_4_384", "dataset=cifar10")
    ),
    "spikingformer cifar100": Case(
        nets.Spikingformer,
        sizes(8, 100),
        (
            *("model=spikingformer_4_384", "dataset=cifar100"),
            "dataset.mean=[0.4914,0.4822,0.4465]",
            "dataset.std=[0.2470,0.2435,0.2616]",
        ),
    ),
    "spikingformer cifar10-dvs": Case(
        nets.Spikingformer,
        sizes(16, 10, tau=1.5, **EVENTS),
        ("model=spikingformer_2_256_events", "dataset=cifar10_dvs", "neuron.tau=1.5"),
        64,
    ),
    "spikingformer dvs128-gesture": Case(
        nets.Spikingformer,
        sizes(16, 11, tau=1.5, **EVENTS),
        ("model=spikingformer_2_256_events", "dataset=dvs128_gesture", "neuron.tau=1.5"),
        64,
    ),
    "spikingformer imagenet": Case(
        nets.Spikingformer,
        sizes(8, 1000, names="proj", pools="1111"),
        ("model=spikingformer_8_512", "dataset=imagenet"),
        64,
    ),
    "sdt cifar10": Case(nets.SpikeDriven, sizes(8, 10), ("model=sdt_2_512", "dataset=cifar10")),
    "sdt cifar10-dvs": Case(
        nets.SpikeDriven,
        sizes(8, 10, channels=2, erode=True),
        (
            *("model=sdt_2_256_events", "dataset=cifar10_dvs", "attention=sdsa_erode"),
            *("model.patch_size=4", "dataset.events.resize=bilinear"),
        ),
        64,
    ),
    "sdt gesture": Case(
        nets.SpikeDriven,
        sizes(8, 11, channels=2, pools="0111"),
        ("model=sdt_2_256_events", "dataset=dvs128_gesture"),
        64,
    ),
    "sdt imagenet": Case(
        nets.SpikeDriven,
        sizes(8, 1000, pools="1111"),
        ("model=sdt_8_512", "dataset=imagenet"),
        64,
    ),
    "qkformer cifar10": Case(
        nets.QKFormer,
        sizes(8, 10, 4),
        ("model=qkformer_4_384", "dataset=cifar10", "attention.batch_leak=true"),
    ),
    "qkformer cifar10-dvs": Case(
        nets.QKFormer,
        sizes(16, 10, named="events", channels=2, ratio=1),
        ("model=qkformer_2_256_events", "dataset=cifar10_dvs", "attention.batch_leak=true"),
        64,
    ),
    "qkformer dvs128-gesture": Case(
        nets.QKFormer,
        sizes(16, 11, named="events", channels=2),
        (
            *("model=qkformer_2_256_events", "dataset=dvs128_gesture", "model.mlp_ratio=4"),
            "attention.batch_leak=true",
        ),
        64,
    ),
    "qkformer imagenet": Case(
        nets.QKFormer,
        sizes(4, 1000, 10, named="imagenet"),
        ("model=qkformer_10_384", "dataset=imagenet", "attention.batch_leak=true"),
        64,
    ),
}


def images(case: Case, batch: int = 3, timesteps: int = 4) -> Tensor:
    """Normalised images [B, C, H, W], or counts of events [B, T, 2, H, W]."""
    generator = torch.Generator().manual_seed(1)
    if case.sizes.get("channels", 3) == 2:
        rates = torch.rand(batch, timesteps, 2, case.side, case.side, generator=generator)
        return torch.poisson(rates, generator=generator).double()
    return torch.randn(batch, 3, case.side, case.side, generator=generator).double()


@functools.cache
def original(name: str, leak: bool = True) -> nn.Module:
    """The network of the original, every parameter and statistic random, and spiking."""
    case = CASES[name]
    torch.manual_seed(0)
    net = case.net(**case.sizes, leak=leak).double()
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0  # the running statistics become those of one batch
        nn.init.uniform_(norm.weight, 1.5, 3.5)
        nn.init.normal_(norm.bias, 0, 0.5)
    for norm in (m for m in net.modules() if isinstance(m, nn.LayerNorm)):
        nn.init.normal_(norm.weight)
    with torch.no_grad():
        net.train()(images(case, 4))
        for norm in norms:
            norm.running_mean += 0.2 * torch.randn_like(norm.running_mean)
            norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.7, 1.4)
            norm.num_batches_tracked += int(torch.randint(100, ()))
    return net.eval()


def names_of(name: str) -> dict[str, Tensor]:
    """State dict of an original: names and shapes, without values."""
    case = CASES[name]
    with torch.device("meta"):
        return dict(case.net(**case.sizes).state_dict())


def watched(net: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Logits of an original, and the firing rate of each of its neuron layers."""
    rates: dict[str, float] = {}
    hooks = [
        module.register_forward_hook(
            lambda _m, _args, out, name=name: rates.__setitem__(name, out.mean().item())
        )
        for name, module in net.named_modules()
        if isinstance(module, LIFNode)
    ]
    with torch.no_grad():
        logits = net(x)
    for hook in hooks:
        hook.remove()
    return logits, rates


MODULES: dict[tuple[str, ...], SAFormerModule] = {}


def ours(compose: Callable, *overrides: str) -> SAFormerModule:
    """A module of ours in float64, whose weights are of no account; built once in a process."""
    if overrides not in MODULES:
        config = compose(*overrides)
        module = SAFormerModule(config, to_dict(config)).double().eval()
        for neuron in (m for m in module.modules() if isinstance(m, Leaky)):
            neuron.beta.fill_(1 - 1 / config.neuron.tau)  # .double() keeps the value of float32
        MODULES[overrides] = module
    return MODULES[overrides]
