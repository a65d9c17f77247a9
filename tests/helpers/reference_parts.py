"""Layers of the original networks in plain PyTorch, under the names of their state dicts.

Written from the description of their forward passes, with SpikingJelly's neurons, and with what
they build and never use. Maps between layers are [T, B, C, H, W]; T timesteps, B batch, C channels,
H W height and width, N = H*W tokens, D width, h heads.
"""

import torch
from spikingjelly.activation_based import neuron
from torch import Tensor, nn


class Part(nn.Module):
    """Pairs of convolution and BatchNorm by name, and a neuron for each."""

    def __init__(self, tau: float = 2.0) -> None:
        super().__init__()
        self.tau = tau
        self.fires = nn.ModuleDict()

    def layer(self, conv: str, bn: str, weights: nn.Module) -> None:
        norm = nn.BatchNorm2d if isinstance(weights, nn.Conv2d) else nn.BatchNorm1d
        self.add_module(conv, weights)
        self.add_module(bn, norm(weights.weight.shape[0]))
        self.neuron(conv)

    def neuron(self, name: str, v_threshold: float = 1.0) -> None:
        self.fires[name] = neuron.LIFNode(
            tau=self.tau, v_threshold=v_threshold, detach_reset=True, step_mode="m"
        )

    def weigh(self, conv: str, bn: str, x: Tensor) -> Tensor:
        """BN(conv(x)), with time folded into the batch."""
        y = getattr(self, bn)(getattr(self, conv)(x.flatten(0, 1)))
        return y.unflatten(0, x.shape[:2])

    def spike(self, conv: str, bn: str, x: Tensor, pool: bool = False) -> Tensor:
        """LIF((pool)(BN(conv(x))))."""
        y = self.weigh(conv, bn, x)
        return self.fires[conv](pooled(y) if pool else y)


def pooled(x: Tensor) -> Tensor:
    y = nn.functional.max_pool2d(x.flatten(0, 1), kernel_size=3, stride=2, padding=1)
    return y.unflatten(0, x.shape[:2])


def conv3(c_in: int, c_out: int) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)


def conv1(c_in: int, c_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, 1, stride=stride, bias=False)


class Sps(Part):
    """Spikformer's and Spike-driven Transformer's; `pools` says after which stages, as "0011"."""

    def __init__(self, channels: int, dim: int, pools: str, membranes: bool, names: str = "proj"):
        super().__init__()
        self.pools, self.membranes = pools, membranes
        widths = [channels, dim // 8, dim // 4, dim // 2, dim]
        self.stages = [("proj_conv", "proj_bn")]
        self.stages += [(f"proj_conv{i}", f"proj_bn{i}") for i in (1, 2, 3)]
        if names == "block":
            self.stages = [(f"block{i}_conv", f"block{i}_bn") for i in (1, 2, 3, 4)]
        for i, (conv, bn) in enumerate(self.stages):
            self.layer(conv, bn, conv3(widths[i], widths[i + 1]))
        self.layer("rpe_conv", "rpe_bn", conv3(dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        for (conv, bn), pools in zip(self.stages[:3], self.pools, strict=False):
            x = self.spike(conv, bn, x)
            x = pooled(x) if pools == "1" else x
        conv, bn = self.stages[3]
        if self.membranes:
            u = self.weigh(conv, bn, x)
            u = pooled(u) if self.pools[3] == "1" else u
            return self.weigh("rpe_conv", "rpe_bn", self.fires[conv](u)) + u
        x = self.spike(conv, bn, x)
        x = pooled(x) if self.pools[3] == "1" else x
        return self.spike("rpe_conv", "rpe_bn", x) + x


class Tokenizer(Part):
    """Spikingformer's: a neuron and perhaps a pooling before every convolution but the first."""

    def __init__(self, channels: int, dim: int, pools: str, names: str, tau: float):
        super().__init__(tau)
        self.pools = pools
        widths = [channels, dim // 8, dim // 4, dim // 2, dim, dim]
        self.stages = [("proj_conv", "proj_bn")]
        self.stages += [(f"proj{i}_conv", f"proj{i}_bn") for i in (1, 2, 3, 4)]
        if names == "block":
            self.stages = [(f"block{i}_conv", f"block{i}_bn") for i in range(5)]
        for i, (conv, bn) in enumerate(self.stages):
            self.layer(conv, bn, conv3(widths[i], widths[i + 1]))

    def forward(self, x: Tensor) -> Tensor:
        x = self.weigh(*self.stages[0], x)
        for (conv, bn), pools in zip(self.stages[1:], self.pools, strict=True):
            x = self.fires[conv](x)
            x = self.weigh(conv, bn, pooled(x) if pools == "1" else x)
        return x


def product(q: Tensor, k: Tensor, v: Tensor, heads: int, scale: float) -> Tensor:
    """s Q K^T V for every head: three [T, B, C, N] to one."""
    q, k, v = (x.unflatten(2, (heads, -1)) for x in (q, k, v))
    weights = torch.einsum("tbhcn,tbhcm->tbhnm", q, k)
    return torch.einsum("tbhnm,tbhcm->tbhcn", weights, v).flatten(2, 3) * scale


class Ssa(Part):
    """Spikformer's, Spikingformer's (`before`: with a neuron before) and QKFormer's SSA."""

    def __init__(
        self, dim: int, heads: int, scale: float, before: bool, tau: float = 2.0, leak: bool = False
    ):
        super().__init__(tau)
        self.heads, self.scale, self.before, self.leak = heads, scale, before, leak
        for name in ("q", "k", "v", "proj"):
            conv = nn.Conv1d(dim, dim, 1, bias=name == "proj")
            self.layer(f"{name}_conv", f"{name}_bn", conv)
        self.neuron("attn", 0.5)

    def forward(self, maps: Tensor) -> Tensor:
        x = self.fires["proj_conv"](maps) if self.before else maps
        x = x.flatten(3)
        q, k, v = (self.spike(f"{name}_conv", f"{name}_bn", x) for name in ("q", "k", "v"))
        y = self.fires["attn"](product(q, k, v, self.heads, self.scale))
        y = self.weigh("proj_conv", "proj_bn", y)
        if self.leak:  # QKFormer's neuron takes [T*B, C, N]
            y = self.fires["proj_conv"](y.flatten(0, 1))
        elif not self.before:
            y = self.fires["proj_conv"](y)
        return y.reshape(maps.shape)


class LinearSsa(Part):
    """SSA of Spikformer for CIFAR, on [T, B, N, D] and with Linear layers."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        for name in ("q", "k", "v", "proj"):
            self.layer(f"{name}_linear", f"{name}_bn", nn.Linear(dim, dim))
        self.neuron("attn", 0.5)

    def weigh(self, conv: str, bn: str, x: Tensor) -> Tensor:
        y = getattr(self, conv)(x)
        return getattr(self, bn)(y.flatten(0, 2)).unflatten(0, y.shape[:3])

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self.spike(f"{n}_linear", f"{n}_bn", x).mT for n in ("q", "k", "v"))
        y = self.fires["attn"](product(q, k, v, self.heads, 0.125).mT)
        return self.spike("proj_linear", "proj_bn", y)


class LinearMlp(LinearSsa):
    """MLP of Spikformer for CIFAR."""

    def __init__(self, dim: int):
        Part.__init__(self)
        self.layer("fc1_linear", "fc1_bn", nn.Linear(dim, 4 * dim))
        self.layer("fc2_linear", "fc2_bn", nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.spike("fc2_linear", "fc2_bn", self.spike("fc1_linear", "fc1_bn", x))


class Mlp(Part):
    """Two convolutions named fc or mlp, of one or two dimensions, with neurons before or after."""

    def __init__(
        self, dim: int, names: str, before: bool, ratio: int = 4, tau: float = 2.0, one_d=False
    ):
        super().__init__(tau)
        self.names, self.before, self.one_d = names, before, one_d
        kind = nn.Conv1d if one_d else nn.Conv2d
        self.layer(f"{names}1_conv", f"{names}1_bn", kind(dim, ratio * dim, 1))
        self.layer(f"{names}2_conv", f"{names}2_bn", kind(ratio * dim, dim, 1))

    def forward(self, maps: Tensor) -> Tensor:
        x = maps.flatten(3) if self.one_d else maps
        for i in (1, 2):
            names = (f"{self.names}{i}_conv", f"{self.names}{i}_bn")
            if self.before:
                x = self.weigh(*names, self.fires[names[0]](x))
            else:
                x = self.spike(*names, x)
        return x.reshape(maps.shape)


class Sdsa(Part):
    """Spike-driven Transformer's; `erode` pools as it does for CIFAR10-DVS."""

    def __init__(self, dim: int, heads: int, erode: bool):
        super().__init__()
        self.heads = heads
        self.pool = nn.MaxPool3d((1, 3, 3), stride=1, padding=(0, 1, 1)) if erode else nn.Identity()
        for name in ("q", "k", "v", "proj"):
            conv = nn.Conv2d(dim, dim, 1, bias=name == "proj")
            self.layer(f"{name}_conv", f"{name}_bn", conv)
        self.talking_heads = nn.Conv1d(heads, heads, 1, bias=False)
        self.neuron("mask", 0.5)

    def rows(self, x: Tensor) -> Tensor:
        """[T, B, D, H, W] to [T, B, h, N, d]."""
        return x.flatten(3).mT.unflatten(3, (self.heads, -1)).transpose(2, 3)

    def forward(self, maps: Tensor) -> Tensor:
        x = self.fires["proj_conv"](maps)
        q, k, v = (self.spike(f"{name}_conv", f"{name}_bn", x) for name in ("q", "k", "v"))
        both = self.pool(self.rows(self.pool(k)) * self.rows(self.pool(v)))
        mask = self.fires["mask"](both.sum(3, keepdim=True))
        y = self.pool(self.rows(q) * mask).transpose(2, 3).flatten(3).mT
        return self.weigh("proj_conv", "proj_bn", y.reshape(maps.shape))


class Qkta(Part):
    """QKFormer's token attention."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        for name in ("q", "k", "proj"):
            conv = nn.Conv1d(dim, dim, 1, bias=name == "proj")
            self.layer(f"{name}_conv", f"{name}_bn", conv)
        self.neuron("mask", 0.5)

    def forward(self, maps: Tensor) -> Tensor:
        x = maps.flatten(3)
        q = self.spike("q_conv", "q_bn", x).unflatten(2, (self.heads, -1))
        k = self.spike("k_conv", "k_bn", x).unflatten(2, (self.heads, -1))
        y = (self.fires["mask"](q.sum(3, keepdim=True)) * k).flatten(2, 3)
        return self.spike("proj_conv", "proj_bn", y).reshape(maps.shape)


class Embedding(Part):
    """QKFormer's patch embeddings, `named` CIFAR, events or ImageNet, `first` or a later one."""

    def __init__(self, named: str, first: bool, channels: int, dim: int):
        super().__init__()
        self.named, self.first = named, first
        half = dim // 2
        widths = {
            ("cifar", True): {"proj": (channels, half), "proj1": (half, dim)},
            ("cifar", False): {"proj3": (half, dim), "proj4": (dim, dim)},
            ("events", True): {
                **{"proj": (channels, dim // 8), "proj1": (dim // 8, dim // 4)},
                **{"proj2": (dim // 4, half), "proj3": (half, dim)},
            },
            ("events", False): {"proj": (half, dim), "proj4": (dim, dim)},
            ("imagenet", True): {
                **{"proj": (channels, half), "proj1": (half, dim), "proj2": (dim, dim)},
            },
            ("imagenet", False): {"proj3": (half, dim), "proj4": (dim, dim)},
        }
        for name, (c_in, c_out) in widths[named, first].items():
            self.layer(f"{name}_conv", f"{name}_bn", conv3(c_in, c_out))
        c_in = dim // 4 if (named, first) == ("events", True) else half
        stride = {"cifar": 1, "events": 4, "imagenet": 2}[named] if first else 2
        self.layer("proj_res_conv", "proj_res_bn", conv1(c_in, dim, stride))

    def step(self, name: str, x: Tensor, pool: bool = False) -> Tensor:
        return self.spike(f"{name}_conv", f"{name}_bn", x, pool)

    def forward(self, x: Tensor) -> Tensor:
        if self.first and self.named == "cifar":
            x = self.step("proj", x)
            return self.step("proj1", x) + self.step("proj_res", x)
        if self.first and self.named == "events":
            x = self.step("proj1", self.step("proj", x), pool=True)
            main = self.step("proj3", self.step("proj2", x, pool=True), pool=True)
            return main + self.step("proj_res", x)
        if self.first:
            x = self.step("proj", x, pool=True)
            main = self.step("proj2", self.step("proj1", x, pool=True))
            return main + self.step("proj_res", x)
        if self.named == "imagenet":
            return self.step("proj4", self.step("proj3", x, pool=True)) + self.step("proj_res", x)
        one = "proj3" if self.named == "cifar" else "proj"
        return self.step("proj4", self.step(one, x), pool=True) + self.step("proj_res", x)
