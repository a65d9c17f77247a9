"""A hierarchical backbone of stages: a patch embedding that widens and pools, then blocks.

Source: QKFormer (arXiv 2403.16552), SPEDS. Its code has three networks, for CIFAR, events and
ImageNet; here they are three choices of the same settings (conf/model/qkformer_*).

T timesteps, B batch, C channels, H W height and width.
"""

from torch import Tensor, nn

from saformer.models.attention.settings import AttentionConfig
from saformer.models.attention.spec import BlockSpec
from saformer.models.block import Block
from saformer.models.layers import ConvBN, Layers, MaxPool
from saformer.models.neuron import build_neuron
from saformer.models.settings import ModelConfig, NeuronConfig, StageConfig
from saformer.models.spike_ops import ResidualAdd


class PatchEmbedding(nn.Module):
    """Convolutions with a skip around the last of them: [T, B, C_in, H, W] -> [T, B, C, H/s, W/s].

    Each layer is convolution, BatchNorm, pooling by two (only where `stage.pool` is true), neuron.
    The skip is a 1x1 convolution with BatchNorm and neuron; its stride is that of the poolings
    which it bypasses. The spikes of both paths are added.

    Args:
        in_channels: Channels C_in.
        dim: Width C of the stage.
        stage: Convolutions, poolings and where the skip starts.
        neuron: Settings of the neurons.
    """

    def __init__(
        self, in_channels: int, dim: int, stage: StageConfig, neuron: NeuronConfig
    ) -> None:
        super().__init__()
        widths = [in_channels, *(dim // divide for divide in stage.embed)]
        layers: list[nn.Module] = []
        for i, pools in enumerate(stage.pool):
            convolution = ConvBN(widths[i], widths[i + 1], 3)
            pooling = [MaxPool()] if pools else []
            layers.append(Layers(convolution, *pooling, build_neuron(neuron)))
        stride = 2 ** sum(stage.pool[stage.skip_from :])
        skip = ConvBN(widths[stage.skip_from], widths[-1], 1, stride=stride)
        self.before = Layers(*layers[: stage.skip_from])
        self.main = Layers(*layers[stage.skip_from :])
        self.skip = Layers(skip, build_neuron(neuron))
        self.add = ResidualAdd()

    def forward(self, x: Tensor) -> Tensor:
        """Map spikes [T, B, C_in, H, W] to sums of two spikes [T, B, C, H/s, W/s]."""
        x = self.before(x)
        x = self.add(self.main(x), self.skip(x))
        return x


def build_stages(
    in_channels: int,
    image_size: int,
    model: ModelConfig,
    attention: AttentionConfig,
    neuron: NeuronConfig,
) -> list[nn.Module]:
    """Build the layers of all stages in order: for each stage its patch embedding, then its blocks.

    Args:
        in_channels: Image channels C.
        image_size: Side of the image in pixels.
        model: Width, heads, DWC and stages.
        attention: Attention of the stages that do not name one.
        neuron: Settings of the neurons.
    """
    layers: list[nn.Module] = []
    side, channels = image_size, in_channels
    for stage in model.stages or []:
        dim = model.dim // stage.divide
        side //= 2 ** sum(stage.pool)
        chosen = AttentionConfig(name=stage.attention) if stage.attention else attention
        layers.append(PatchEmbedding(channels, dim, stage, neuron))
        spec = BlockSpec(dim=dim, num_tokens=side**2, model=model, attention=chosen, neuron=neuron)
        layers += [Block(spec) for _ in range(stage.depth)]
        channels = dim
    return layers
