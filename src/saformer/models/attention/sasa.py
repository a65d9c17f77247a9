"""Spike Aggregation Self-Attention (SASA): a binary mask from query and key gates spikes.

Source: SAFormer (arXiv 2412.13553), abstract: attention weights are computed "using only the spike
matrices query and key". We do not have its equations. The code is our reading, a family of variants
whose choices are settings. docs/model.md gives their equations and says what is known.

T timesteps, B batch, D width, h heads, d = D/h, H W height and width, N = H*W tokens.
"""

from torch import Tensor, nn

from saformer.models.attention.aggregation import CHANNELS, TOKENS, SpikeAggregation
from saformer.models.attention.branch import AttentionBranch, join_heads, projection
from saformer.models.attention.settings import Aggregate, ApplyTo, WeightSource
from saformer.models.attention.spec import BlockSpec
from saformer.models.settings import DWCPlace
from saformer.models.spike_ops import SpikeMask


class SASA(AttentionBranch):
    """q = SN(BN(W_q x)), k = SN(BN(W_k x)); w is q*k, q or k; SN(aggregate(w)) gates k, q or x.

    A projection that nothing reads is not built. With weights "none", every gate is open: a control
    that shows what the mask contributes. The DWC's input is k.
    """

    def build(self, spec: BlockSpec) -> None:
        config = spec.attention
        self.apply_to = config.apply_to
        self.reads_q = config.weights in (WeightSource.q, WeightSource.qk)
        reads_k = config.weights in (WeightSource.k, WeightSource.qk)
        reads_k |= config.apply_to is ApplyTo.k or spec.model.dwc.place is DWCPlace.parallel
        needs_q = self.reads_q or config.apply_to is ApplyTo.q
        self.q = projection(spec) if needs_q else None
        self.k = projection(spec) if reads_k else None
        self.and_qk = SpikeMask() if config.weights is WeightSource.qk else None
        lengths = {CHANNELS: spec.dim // self.num_heads, TOKENS: spec.num_tokens}
        axes = {
            Aggregate.channels: [CHANNELS],
            Aggregate.tokens: [TOKENS],
            Aggregate.both: [CHANNELS, TOKENS],
        }[config.aggregate]
        if config.weights is WeightSource.none:
            axes = []
        self.masks = nn.ModuleList(
            SpikeAggregation(axis, lengths[axis], config, spec.neuron) for axis in axes
        )
        self.gate = SpikeMask()

    def attend(self, x: Tensor) -> tuple[Tensor, Tensor]:
        q = self.q(x) if self.q is not None else x
        k = self.k(x) if self.k is not None else x
        y = self.heads({ApplyTo.q: q, ApplyTo.k: k, ApplyTo.x: x}[self.apply_to])
        w = self.and_qk(q, k) if self.and_qk is not None else q if self.reads_q else k
        for mask in self.masks:
            y = self.gate(mask(self.heads(w)), y)
        return join_heads(y, like=x), k
