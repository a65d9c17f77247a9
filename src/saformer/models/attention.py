"""Spike Aggregation Self-Attention (SASA): a binary mask from query and key gates spikes.

Source: SAFormer (arXiv 2412.13553), abstract: attention weights are computed "using only the spike
matrices query and key". The equations are not at hand: what follows is our reading, a family of
which every axis is a setting. docs/model.md writes the equations out and says what is known.

T timesteps, B batch, D width, h heads, d = D/h, H W height and width, N = H*W tokens.
"""

from torch import Tensor, nn

from saformer.models.layers import ConvBN
from saformer.models.neuron import build_neuron
from saformer.models.settings import (
    Aggregate,
    ApplyTo,
    AttentionConfig,
    DWCConfig,
    DWCPlace,
    NeuronConfig,
    Operator,
    Residual,
    Threshold,
    WeightSource,
)
from saformer.models.spike_ops import SpikeMask, SpikeMax, SpikeSum

CHANNELS, TOKENS = -2, -1  # axes of a head-split spike matrix [T, B, h, d, N]


class SpikeAggregation(nn.Module):
    """Binary mask from aggregated spikes along one axis: a = SN(aggregate(w)).

    Args:
        dim: Axis that is aggregated, `CHANNELS` or `TOKENS`.
        length: Its size, the largest value a sum can take.
        config: Operator and threshold.
        neuron: Settings of the mask neuron SN.
    """

    def __init__(
        self, dim: int, length: int, config: AttentionConfig, neuron: NeuronConfig
    ) -> None:
        super().__init__()
        self.dim = dim
        self.reduce = SpikeMax() if config.operator is Operator.max else SpikeSum()
        self.scale = 1 / length if config.operator is Operator.mean else 1.0
        largest = length if config.operator is Operator.sum else 1
        by_fraction = config.threshold is Threshold.fraction
        self.lif = build_neuron(
            neuron,
            v_threshold=config.v_threshold * largest if by_fraction else config.v_threshold,
            learn_threshold=config.threshold is Threshold.learnable,
        )

    def forward(self, w: Tensor) -> Tensor:
        return self.lif(self.reduce(w, self.dim) * self.scale)


class SASA(nn.Module):
    """Attention branch of a block: [T, B, D, H, W] -> [T, B, D, H, W], without the residual.

    q = SN(BN(W_q x)), k = SN(BN(W_k x)); w is q*k, q or k; the mask a = SN(aggregate(w)) gates k, q
    or x; then the output projection. A projection that nothing reads is not built. With weights
    "none" every gate is open, the control for what the mask contributes.

    The depthwise convolution (DWC) sits beside the mask on k, y = SN(a*k + BN(DW(k))), or in series
    after the projection, BN(DW(SN(BN(W_o y)))).

    Args:
        dim: Width D.
        num_heads: Heads h.
        num_tokens: Tokens N of the feature map.
        config: The reading of SASA.
        dwc: Place and kernel of the DWC; the place "mlp" leaves the attention without one.
        residual: Membrane: the branch starts with a neuron. SEW: it ends with one.
        neuron: Settings of the neurons.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_tokens: int,
        config: AttentionConfig,
        dwc: DWCConfig,
        residual: Residual,
        neuron: NeuronConfig,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.apply_to = config.apply_to
        parallel = dwc.place is DWCPlace.parallel
        series = dwc.place is DWCPlace.series
        self.reads_q = config.weights in (WeightSource.q, WeightSource.qk)
        reads_k = config.weights in (WeightSource.k, WeightSource.qk)

        def projection() -> nn.Module:
            return nn.Sequential(ConvBN(dim, dim, 1, bias=config.qkv_bias), build_neuron(neuron))

        def depthwise() -> ConvBN:
            return ConvBN(dim, dim, dwc.kernel_size, groups=dim)

        membrane = residual is Residual.membrane
        self.lif_in = build_neuron(neuron) if membrane else nn.Identity()
        self.q = projection() if self.reads_q or config.apply_to is ApplyTo.q else None
        self.k = projection() if reads_k or config.apply_to is ApplyTo.k or parallel else None
        self.and_qk = SpikeMask() if config.weights is WeightSource.qk else None
        lengths = {CHANNELS: dim // num_heads, TOKENS: num_tokens}
        axes = {
            Aggregate.channels: [CHANNELS],
            Aggregate.tokens: [TOKENS],
            Aggregate.both: [CHANNELS, TOKENS],
        }[config.aggregate]
        if config.weights is WeightSource.none:
            axes = []
        self.masks = nn.ModuleList(
            SpikeAggregation(axis, lengths[axis], config, neuron) for axis in axes
        )
        self.gate = SpikeMask()
        self.dwc_parallel = depthwise() if parallel else None
        # Same threshold as the mask neuron: behind it a lone gated spike must be able to pass.
        self.lif_parallel = build_neuron(neuron, v_threshold=0.5) if parallel else None
        self.proj = ConvBN(dim, dim, 1, bias=True)
        self.dwc_series = nn.Sequential(build_neuron(neuron), depthwise()) if series else None
        self.lif_out = nn.Identity() if membrane else build_neuron(neuron)

    def forward(self, x: Tensor) -> Tensor:
        x = self.lif_in(x)
        q = self.q(x) if self.q is not None else x
        k = self.k(x) if self.k is not None else x
        y = self._heads({ApplyTo.q: q, ApplyTo.k: k, ApplyTo.x: x}[self.apply_to])
        w = self.and_qk(q, k) if self.and_qk is not None else q if self.reads_q else k
        for mask in self.masks:
            y = self.gate(mask(self._heads(w)), y)
        y = y.flatten(2, 3).unflatten(3, x.shape[3:])  # [T, B, h, d, N] -> [T, B, D, H, W]
        if self.dwc_parallel is not None and self.lif_parallel is not None:
            y = self.lif_parallel(y + self.dwc_parallel(k))
        y = self.proj(y)
        if self.dwc_series is not None:
            y = self.dwc_series(y)
        return self.lif_out(y)

    def _heads(self, x: Tensor) -> Tensor:
        """[T, B, D, H, W] -> [T, B, h, d, N], a view."""
        return x.flatten(3).unflatten(2, (self.num_heads, -1))
