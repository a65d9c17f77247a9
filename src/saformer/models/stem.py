"""Stems turn images into tokens with a few convolutions and poolings.

Sources: Spikformer (arXiv 2209.15425), section 3.2; Spike-driven Transformer (arXiv 2307.01694) for
the membrane form of its last two stages; Spikingformer (arXiv 2304.11954) for the other stem. With
the usual four stages, the widths are C_in -> D/8 -> D/4 -> D/2 -> D -> D.
"""

import math

from torch import Tensor, nn

from saformer.models.layers import ConvBN, Layers, MaxPool
from saformer.models.neuron import build_neuron
from saformer.models.settings import ModelConfig, NeuronConfig, Residual, StemKind
from saformer.models.spike_ops import ResidualAdd


def build_stem(in_channels: int, model: ModelConfig, neuron: NeuronConfig) -> nn.Module:
    """Build the stem, which maps [T, B, C, H, W] to [T, B, D, H/patch_size, W/patch_size].

    Args:
        in_channels: Image channels C.
        model: Width, patch size, kind and depth of the stem, residual.
        neuron: Settings of the neurons.
    """
    kind = SpikingPatchStem if model.stem is StemKind.sps else PreActivationStem
    return kind(in_channels, model, neuron)


def _widths(in_channels: int, model: ModelConfig) -> list[int]:
    """C_in, then the width of each stage, doubling up to D."""
    return [in_channels, *(model.dim >> i for i in reversed(range(model.stem_depth)))]


def _first_pool(model: ModelConfig) -> int:
    """Index of the first stage that pools; the last log2(patch_size) stages do."""
    return model.stem_depth - int(math.log2(model.patch_size))


class SpikingPatchStem(nn.Module):
    """Spikformer's patch splitting, with a convolution for the position embedding.

    A stage is convolution, BatchNorm, neuron and, in the last log2(patch_size) stages, a pooling by
    two. The position embedding is one more convolution with a skip around it. With the membrane
    residual, the last stage has no neuron: its membrane u is the stream, and the embedding adds
    BN(conv(LIF(u))). With the SEW residual, the stream and the embedding are spikes.

    Args:
        in_channels: Image channels C.
        model: Width, patch size, depth of the stem, residual.
        neuron: Settings of the neurons.
    """

    def __init__(self, in_channels: int, model: ModelConfig, neuron: NeuronConfig) -> None:
        super().__init__()
        membrane = model.residual is Residual.membrane
        widths = _widths(in_channels, model)
        stages: list[nn.Module] = []
        for i in range(model.stem_depth):
            stages.append(ConvBN(widths[i], widths[i + 1], 3))
            if not (membrane and i == model.stem_depth - 1):
                stages.append(build_neuron(neuron))
            if i >= _first_pool(model):
                stages.append(MaxPool())
        self.stages = Layers(*stages)
        position = ConvBN(model.dim, model.dim, 3)
        lif = build_neuron(neuron)
        self.position = Layers(lif, position) if membrane else Layers(position, lif)
        self.add = ResidualAdd()

    def forward(self, x: Tensor) -> Tensor:
        """Map images [T, B, C, H, W] to the stream [T, B, D, H/p, W/p], p the patch size."""
        x = self.stages(x)
        x = self.add(x, self.position(x))
        return x


class PreActivationStem(nn.Module):
    """Spikingformer's tokenizer: every convolution but the first has a neuron before it.

    After the first convolution, a stage is neuron, pooling by two (in the last log2(patch_size)
    stages), convolution and BatchNorm. There is no skip, and the output is a membrane.

    Args:
        in_channels: Image channels C.
        model: Width, patch size, depth of the stem.
        neuron: Settings of the neurons.
    """

    def __init__(self, in_channels: int, model: ModelConfig, neuron: NeuronConfig) -> None:
        super().__init__()
        widths = [*_widths(in_channels, model), model.dim]
        stages: list[nn.Module] = [ConvBN(widths[0], widths[1], 3)]
        for i in range(model.stem_depth):
            stages.append(build_neuron(neuron))
            if i >= _first_pool(model):
                stages.append(MaxPool())
            stages.append(ConvBN(widths[i + 1], widths[i + 2], 3))
        self.stages = Layers(*stages)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [T, B, C, H, W] to the stream [T, B, D, H/p, W/p], p the patch size."""
        y: Tensor = self.stages(x)
        return y
