"""The parts that all attentions with projections share: end neurons, DWC, output projection.

T timesteps, B batch, D width, h heads, d = D/h, H W height and width, N = H*W tokens.
"""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from saformer.models.attention.spec import BlockSpec
from saformer.models.layers import ConvBN, Layers, in_turn
from saformer.models.neuron import build_neuron
from saformer.models.settings import DWCPlace, Residual


class AttentionBranch(nn.Module, ABC):
    """Attention branch of a block: [T, B, D, H, W] -> [T, B, D, H, W], without the residual.

    A subclass defines the attention, y = attend(x); the output projection BN(W_o y) follows. The
    depthwise convolution (DWC) is parallel to the attention, y' = SN(y + BN(DW(u))), where u are
    the spikes that the attention gates or mixes, or it is in series after the projection,
    BN(DW(SN(BN(W_o y)))).

    Args:
        spec: Sizes and settings of the block.
        **options: Additional arguments of `build` in a subclass.
    """

    recompute = False  # same meaning as in `Layers`

    def __init__(self, spec: BlockSpec, **options: Any) -> None:
        super().__init__()
        dim, model, neuron = spec.dim, spec.model, spec.neuron
        self.num_heads = model.num_heads
        membrane = model.residual is Residual.membrane
        parallel = model.dwc.place is DWCPlace.parallel
        series = model.dwc.place is DWCPlace.series

        def depthwise() -> ConvBN:
            return ConvBN(dim, dim, model.dwc.kernel_size, groups=dim)

        self.lif_in = build_neuron(neuron) if membrane else nn.Identity()
        # Call it here, so that layers are registered in the order in which they run.
        self.build(spec, **options)
        self.dwc_parallel = depthwise() if parallel else None
        # The threshold does not depend on attention.v_threshold: a single gated spike, which
        # tau=2 halves, must be able to pass.
        self.lif_parallel = build_neuron(neuron, v_threshold=0.5) if parallel else None
        self.proj = ConvBN(dim, dim, 1, bias=True)
        self.dwc_series = Layers(build_neuron(neuron), depthwise()) if series else None
        self.lif_out: nn.Module = nn.Identity() if membrane else build_neuron(neuron)

    @abstractmethod
    def build(self, spec: BlockSpec) -> None:
        """Make the layers that `attend` needs."""

    @abstractmethod
    def attend(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map spikes [T, B, D, H, W] to the output of the attention, and to the DWC's input u."""

    def forward(self, x: Tensor) -> Tensor:
        """Map the stream [T, B, D, H, W] to the branch that is added to it, of the same shape."""
        y, u = self.attend(self.lif_in(x))
        if self.dwc_parallel is not None and self.lif_parallel is not None:
            y = self.lif_parallel(y + self.dwc_parallel(u))
        last_layers = [self.proj, *(self.dwc_series or ()), self.lif_out]
        return in_turn(last_layers, y, self.recompute and self.training)

    def heads(self, x: Tensor) -> Tensor:
        """Split heads: [T, B, D, H, W] -> [T, B, h, d, N], a view."""
        x = x.flatten(3).unflatten(2, (self.num_heads, -1))
        return x


def join_heads(y: Tensor, like: Tensor) -> Tensor:
    """Join heads: [T, B, h, d, N] -> [T, B, D, H, W], with H and W of `like`."""
    y = y.flatten(2, 3).unflatten(3, like.shape[3:])
    return y


def projection(spec: BlockSpec) -> Layers:
    """Build the layers of query, key or value: SN(BN(W x))."""
    weights = ConvBN(spec.dim, spec.dim, 1, bias=spec.attention.qkv_bias)
    return Layers(weights, build_neuron(spec.neuron))
