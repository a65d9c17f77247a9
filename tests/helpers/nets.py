"""Small networks whose arithmetic is exact, so that a loop over time and all steps at once agree.

Weights, images and constants are multiples of powers of two: no sum is ever rounded.
"""

import snntorch as snn
import torch
from torch import Tensor, nn

from saformer.models.neuron import MultiStepLeaky
from saformer.models.spike_ops import ResidualAdd, SpikeMatMul

T, B = 4, 3


def images(batch: int = B, channels: int = 3, size: int = 16) -> Tensor:
    """Real images in steps of 1/8."""
    generator = torch.Generator().manual_seed(batch + 10 * channels)
    return (torch.randn(batch, channels, size, size, generator=generator) * 8).round() / 8


def frames(batch: int = B, rate: float = 0.3, size: int = 16) -> Tensor:
    """Events [B, T, 3, H, W] of zeros and ones."""
    generator = torch.Generator().manual_seed(batch)
    return (torch.rand(batch, T, 3, size, size, generator=generator) < rate).float()


def exact(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights that are multiples of 1/16, large enough for every layer to spike."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            weight = torch.randn(module.weight.shape, generator=generator) * 2.5 / fan_in**0.5
            weight = (weight * 16).round() / 16
            module.weight.data = weight.where(weight != 0, 1 / 16)  # a zero counts as pruned
            if module.bias is not None:
                nn.init.constant_(module.bias, 0.125)
    return model


class TinySSA(nn.Module):
    """The network of 16 px that facts compare tools on: stem, SSA with SEW residual, MLP, head.

    Args:
        loop: Run snnTorch's neurons step by step, as its tutorials do, instead of all at once.
        order: "qk_v" for (q k^T) v, whose second product meets integers; "q_kv" for q (k^T v).
        markers: Write the products of attention with SpikeMatMul, where they can be counted.
    """

    def __init__(self, loop: bool = False, order: str = "qk_v", markers: bool = True) -> None:
        super().__init__()
        self.loop, self.order = loop, order
        if not loop:
            self.timesteps = T

        def neuron() -> nn.Module:
            return (snn.Leaky if loop else MultiStepLeaky)(beta=0.5)

        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.lif1 = neuron()
        self.conv2 = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.lif2 = neuron()
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False)
        self.lif3 = neuron()
        self.pool = nn.MaxPool2d(2)
        self.conv3 = nn.Conv2d(16, 32, 3, padding=1)
        self.lif4 = neuron()
        for name in "qkv":
            setattr(self, name, nn.Linear(32, 32))
            setattr(self, f"lif_{name}", neuron())
        self.product1, self.product2 = (SpikeMatMul() if markers else torch.matmul for _ in "12")
        self.lif_attention = neuron()
        self.proj = nn.Linear(32, 32)
        self.lif_proj = neuron()
        self.add = ResidualAdd()
        self.fc1 = nn.Linear(32, 128)
        self.lif_fc1 = neuron()
        self.fc2 = nn.Linear(128, 32)
        self.lif_fc2 = neuron()
        self.head = nn.Linear(32, 10)
        exact(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] or frames [B, T, C, H, W] to logits [T, B, K]."""
        x = x.expand(T, *x.shape) if x.ndim == 4 else x.transpose(0, 1)
        self.mems: dict[str, Tensor] = {}
        if self.loop:
            return torch.stack([self.step(frame) for frame in x])
        return self.step(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    def fire(self, name: str, x: Tensor) -> Tensor:
        neuron = getattr(self, name)
        if not self.loop:
            spikes: Tensor = neuron(x.unflatten(0, (T, -1))).flatten(0, 1)
            return spikes
        mem = self.mems.get(name, torch.zeros_like(x))
        spikes, self.mems[name] = neuron(x, mem)
        return spikes

    def step(self, x: Tensor) -> Tensor:
        x = self.fire("lif1", self.conv1(x))
        x = self.fire("lif2", self.conv2(x))
        x = self.pool(self.fire("lif3", self.depthwise(x)))
        x = self.fire("lif4", self.conv3(x)).flatten(2).mT  # [T*B, N, D]
        q, k, v = (
            self.fire(f"lif_{name}", getattr(self, name)(x)).unflatten(2, (4, 8)).transpose(1, 2)
            for name in "qkv"
        )
        if self.order == "qk_v":
            y = self.product2(self.product1(q, k.mT), v)
        else:
            y = self.product2(q, self.product1(k.mT, v))
        y = self.fire("lif_attention", y.transpose(1, 2).flatten(2) / 4)
        x = self.add(x, self.fire("lif_proj", self.proj(y)))
        y = self.fire("lif_fc2", self.fc2(self.fire("lif_fc1", self.fc1(x))))
        logits: Tensor = self.head((x + y).mean(1))
        return logits


class Chain(nn.Module):
    """Layers one after the other, with time in the batch [T*B, ...]."""

    def __init__(self, *layers: nn.Module, timesteps: int | None = None) -> None:
        super().__init__()
        if timesteps is not None:
            self.timesteps = timesteps
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x
