"""The original networks, one class for each way their model files build them.

The state dicts have the names of theirs; reference_parts.py has the layers, and what they build and
never use. T timesteps, B batch, C channels, H W height and width, D width, K classes.
"""

import torch
from reference_parts import Embedding, LinearMlp, LinearSsa, Mlp, Qkta, Sdsa, Sps, Ssa, Tokenizer
from spikingjelly.activation_based import functional, neuron
from torch import Tensor, nn


class Block(nn.Module):
    """x + attention(x), then x + MLP(x); `norms` builds the two LayerNorms that nobody calls."""

    def __init__(self, mlp: nn.Module, *, norms: int | None = None, **attention: nn.Module):
        super().__init__()
        ((self.name, module),) = attention.items()
        self.add_module(self.name, module)
        self.mlp = mlp
        if norms is not None:
            self.norm1, self.norm2 = nn.LayerNorm(norms), nn.LayerNorm(norms)

    def forward(self, x: Tensor) -> Tensor:
        x = x + getattr(self, self.name)(x)
        return x + self.mlp(x)


class Network(nn.Module):
    """Images [B, C, H, W], shown T times, or event frames [B, T, C, H, W], to logits [B, K]."""

    def __init__(self, dim: int, classes: int, timesteps: int = 4):
        super().__init__()
        self.timesteps = timesteps
        self.head = nn.Linear(dim, classes)

    def features(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        return x.flatten(3).mean(3)

    def embed(self, x: Tensor) -> Tensor:
        return self.patch_embed(x)

    def forward(self, x: Tensor) -> Tensor:
        functional.reset_net(self)
        x = x.transpose(0, 1) if x.ndim == 5 else x.expand(self.timesteps, *x.shape)
        return self.classify(self.features(self.embed(x)))

    def classify(self, x: Tensor) -> Tensor:
        return self.head(x.mean(0))


class SpikformerCifar(Network):
    """cifar10/model.py."""

    def __init__(self, dim, depth, heads, classes, channels=3, **_):
        super().__init__(dim, classes)
        self.patch_embed = Sps(channels, dim, "0011", membranes=False)
        self.block = nn.ModuleList(
            Block(LinearMlp(dim), attn=LinearSsa(dim, heads), norms=dim) for _ in range(depth)
        )

    def embed(self, x: Tensor) -> Tensor:
        return self.patch_embed(x).flatten(3).mT

    def features(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        return x.mean(2)


class SpikformerFirst(Network):
    """model.py, of its first commits."""

    def __init__(self, dim, depth, heads, classes, channels=3, **_):
        super().__init__(dim, classes)
        self.patch_embed = Sps(channels, dim, "0011", membranes=False, names="block")
        self.block = nn.ModuleList(
            Block(Mlp(dim, "fc", False), attn=Ssa(dim, heads, 0.125, False), norms=dim)
            for _ in range(depth)
        )


class SpikformerEvents(Network):
    """cifar10dvs/model.py."""

    def __init__(self, dim, depth, heads, classes, channels=2, side=128, scale=0.25, **_):
        super().__init__(dim, classes)
        self.patch_embed = Sps(channels, dim, "1111", membranes=False)
        self.pos_embed = nn.Parameter(torch.randn(1, (side // 16) ** 2, dim))
        self.block = nn.ModuleList(
            Block(Mlp(dim, "fc", False, one_d=True), attn=Ssa(dim, heads, scale, False), norms=dim)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)


class SpikformerImagenet(Network):
    """imagenet/model.py."""

    def __init__(self, dim, depth, heads, classes, channels=3, **_):
        super().__init__(dim, classes)
        self.patch_embed = Sps(channels, dim, "1111", membranes=False)
        self.block = nn.ModuleList(
            Block(Mlp(dim, "fc", False), attn=Ssa(dim, heads, 0.125, False), norms=dim)
            for _ in range(depth)
        )


class Spikingformer(Network):
    """cifar10, cifar100 (`names` "block"), cifar10-dvs, dvs128-gesture, imagenet/model.py."""

    def __init__(
        self, dim, depth, heads, classes, channels=3, names="block", pools="0011", tau=2.0, **_
    ):
        super().__init__(dim, classes)
        self.patch_embed = Tokenizer(channels, dim, pools, names, tau)
        self.block = nn.ModuleList(
            Block(
                Mlp(dim, "mlp", True, tau=tau),
                attn=Ssa(dim, heads, 0.125, True, tau=tau),
                norms=dim,
            )
            for _ in range(depth)
        )


class SpikeDriven(Network):
    """model/spikeformer.py."""

    def __init__(self, dim, depth, heads, classes, channels=3, pools="0011", erode=False, **_):
        super().__init__(dim, classes)
        self.patch_embed = Sps(channels, dim, pools, membranes=True)
        self.block = nn.ModuleList(
            Block(Mlp(dim, "fc", True), attn=Sdsa(dim, heads, erode)) for _ in range(depth)
        )
        self.head_lif = neuron.LIFNode(tau=2.0, detach_reset=True, step_mode="m")

    def classify(self, x: Tensor) -> Tensor:
        return self.head(self.head_lif(x)).mean(0)


class QKFormer(Network):
    """cifar10, cifar100, cifar10-dvs, dvs128-gesture/model.py and imagenet/qkformer.py."""

    def __init__(
        self, dim, depth, heads, classes, channels=3, named="cifar", ratio=4, leak=True, **_
    ):
        super().__init__(dim, classes)
        shares, depths = {
            "cifar": ((4, 2, 1), (1, 1, depth - 2)),
            "events": ((2, 1), (1, depth - 1)),
            "imagenet": ((4, 2, 1), (1, 2, depth - 3)),
        }[named]
        names = "fc" if named == "imagenet" else "mlp"
        self.count = len(shares)
        for i, (share, blocks) in enumerate(zip(shares, depths, strict=True), start=1):
            width = dim // share
            embedding = Embedding(named, i == 1, channels, width)

            def block(width: int = width, last: bool = i == self.count) -> Block:
                mlp = Mlp(width, names, False, ratio)
                if not last:
                    return Block(mlp, tssa=Qkta(width, heads))
                ssa = Ssa(width, heads, 0.125, False, leak=leak)
                return Block(mlp, **{"attn" if named == "imagenet" else "ssa": ssa})

            self.add_module(f"patch_embed{i}", embedding)
            self.add_module(f"stage{i}", nn.ModuleList(block() for _ in range(blocks)))

    def embed(self, x: Tensor) -> Tensor:
        return x

    def features(self, x: Tensor) -> Tensor:
        for i in range(1, self.count + 1):
            x = getattr(self, f"patch_embed{i}")(x)
            for block in getattr(self, f"stage{i}"):
                x = block(x)
        return x.flatten(3).mean(3)
