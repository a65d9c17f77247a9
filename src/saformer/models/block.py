"""Encoder block: attention branch and MLP branch around a residual stream.

T timesteps, B batch, D width, H W height and width.
"""

from torch import Tensor, nn

from saformer.models.attention.build import build_attention
from saformer.models.attention.settings import AttentionConfig
from saformer.models.layers import ConvBN, Layers
from saformer.models.neuron import build_neuron
from saformer.models.settings import DWCPlace, ModelConfig, NeuronConfig, Residual
from saformer.models.spike_ops import ResidualAdd


class MLP(nn.Module):
    """Two 1x1 convolutions with a neuron before each (membrane) or after each (SEW).

    With the DWC in the MLP, the hidden spikes pass SN -> DW -> BN -> SN between the two.

    Args:
        dim: Width D.
        model: Ratio, residual and DWC place.
        neuron: Settings of the neurons.
    """

    def __init__(self, dim: int, model: ModelConfig, neuron: NeuronConfig) -> None:
        super().__init__()
        hidden = int(dim * model.mlp_ratio)
        membrane = model.residual is Residual.membrane
        layers: list[nn.Module] = [build_neuron(neuron)] if membrane else []
        layers += [ConvBN(dim, hidden, 1, bias=True), build_neuron(neuron)]
        if model.dwc.place is DWCPlace.mlp:
            depthwise = ConvBN(hidden, hidden, model.dwc.kernel_size, groups=hidden)
            layers += [depthwise, build_neuron(neuron)]
        layers.append(ConvBN(hidden, dim, 1, bias=True))
        if not membrane:
            layers.append(build_neuron(neuron))
        self.layers = Layers(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y


class Block(nn.Module):
    """One encoder block: [T, B, D, H, W] -> [T, B, D, H, W]; without attention, its MLP alone.

    Args:
        dim: Width D.
        num_tokens: Tokens N of the feature map.
        model: Heads, residual, DWC.
        attention: Which attention, and its settings.
        neuron: Settings of the neurons.
    """

    def __init__(
        self,
        dim: int,
        num_tokens: int,
        model: ModelConfig,
        attention: AttentionConfig,
        neuron: NeuronConfig,
    ) -> None:
        super().__init__()
        self.attn = build_attention(dim, num_tokens, model, attention, neuron)
        self.attn_add = ResidualAdd() if self.attn is not None else None
        self.mlp = MLP(dim, model, neuron)
        self.mlp_add = ResidualAdd()

    def forward(self, x: Tensor) -> Tensor:
        if self.attn is not None and self.attn_add is not None:
            x = self.attn_add(x, self.attn(x))
        x = self.mlp_add(x, self.mlp(x))
        return x
