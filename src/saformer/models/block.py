"""Encoder block: attention branch and MLP branch around a residual stream.

T timesteps, B batch, D width, H W height and width.
"""

from torch import Tensor, nn

from saformer.models.attention.build import build_attention
from saformer.models.attention.spec import BlockSpec
from saformer.models.layers import ConvBN, Layers
from saformer.models.neuron import build_neuron
from saformer.models.settings import DWCPlace, Residual
from saformer.models.spike_ops import ResidualAdd


class MLP(nn.Module):
    """Two 1x1 convolutions with a neuron before each (membrane) or after each (SEW).

    If the DWC is in the MLP, SN -> DW -> BN -> SN run between the two convolutions.

    Args:
        spec: Width, ratio, residual, DWC place and neurons.
    """

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        dim, model, neuron = spec.dim, spec.model, spec.neuron
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
        """Map the stream [T, B, D, H, W] to the branch that is added to it, of the same shape."""
        y: Tensor = self.layers(x)
        return y


class Block(nn.Module):
    """One encoder block: [T, B, D, H, W] -> [T, B, D, H, W]; without attention, only the MLP.

    Args:
        spec: Sizes and settings of the block.
    """

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        self.attn = build_attention(spec)
        self.attn_add = ResidualAdd() if self.attn is not None else None
        self.mlp = MLP(spec)
        self.mlp_add = ResidualAdd()

    def forward(self, x: Tensor) -> Tensor:
        """Map the stream [T, B, D, H, W] to the stream of the next block, of the same shape."""
        if self.attn is not None and self.attn_add is not None:
            x = self.attn_add(x, self.attn(x))
        x = self.mlp_add(x, self.mlp(x))
        return x
