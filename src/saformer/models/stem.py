"""Spiking patch splitting: four convolution stages and a convolutional position embedding.

Source: Spikformer (arXiv 2209.15425), section 3.2; the membrane form of the last two stages follows
Spike-driven Transformer (arXiv 2307.01694). Widths C_in -> D/8 -> D/4 -> D/2 -> D -> D.
"""

import math

from torch import Tensor, nn

from saformer.models.layers import ConvBN, MaxPool
from saformer.models.neuron import build_neuron
from saformer.models.settings import NeuronConfig, Residual
from saformer.models.spike_ops import ResidualAdd

NUM_STAGES = 4


class SpikingPatchStem(nn.Module):
    """Images to tokens: [T, B, C, H, W] -> [T, B, D, H/patch_size, W/patch_size].

    A stage is convolution, BatchNorm, neuron and, in the last log2(patch_size) stages, a pooling by
    two. The position embedding is one more convolution with a skip around it. With the membrane
    residual the last stage has no neuron: its membrane u is the stream, and the embedding adds
    BN(conv(LIF(u))). With the SEW residual both carry spikes.

    Args:
        in_channels: Image channels C.
        dim: Embedding width D, divisible by 8.
        patch_size: Stride, a power of two up to 16.
        residual: What the stream carries.
        neuron: Settings of the neurons.
    """

    def __init__(
        self,
        in_channels: int,
        dim: int,
        patch_size: int,
        residual: Residual,
        neuron: NeuronConfig,
    ) -> None:
        super().__init__()
        membrane = residual is Residual.membrane
        first_pool = NUM_STAGES - int(math.log2(patch_size))
        widths = [in_channels, dim // 8, dim // 4, dim // 2, dim]
        stages: list[nn.Module] = []
        for i in range(NUM_STAGES):
            stages.append(ConvBN(widths[i], widths[i + 1], 3))
            if not (membrane and i == NUM_STAGES - 1):
                stages.append(build_neuron(neuron))
            if i >= first_pool:
                stages.append(MaxPool())
        self.stages = nn.Sequential(*stages)
        position = ConvBN(dim, dim, 3)
        lif = build_neuron(neuron)
        self.position = nn.Sequential(lif, position) if membrane else nn.Sequential(position, lif)
        self.add = ResidualAdd()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(x)
        return self.add(x, self.position(x))
