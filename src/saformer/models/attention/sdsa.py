"""Spike-Driven Self-Attention (SDSA): key and value make a mask over channels that gates the query.

Source: the code of Spike-driven Transformer (arXiv 2307.01694). Its paper uses other names: there
the gated spikes are the value, and the mask comes from query and key.

T timesteps, B batch, D width, h heads, d = D/h, H W height and width, N = H*W tokens.
"""

from torch import Tensor, nn

from saformer.models.attention.aggregation import TOKENS, SpikeAggregation
from saformer.models.attention.branch import AttentionBranch, join_heads, projection
from saformer.models.attention.spec import BlockSpec
from saformer.models.layers import MaxPool
from saformer.models.spike_ops import SpikeMask


class SDSA(AttentionBranch):
    """y = Q * SN(sum over tokens of K * V); the DWC's input is q."""

    def build(self, spec: BlockSpec) -> None:
        self.q, self.k, self.v = (projection(spec) for _ in range(3))
        self.and_kv = SpikeMask()
        self.mask = SpikeAggregation(TOKENS, spec.num_tokens, spec.attention, spec.neuron)
        self.gate = SpikeMask()
        # It pools over the last two axes: H and W, or d and N once heads are split.
        self.pool = MaxPool(stride=1) if spec.attention.erode else nn.Identity()

    def attend(self, x: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = self.q(x), self.pool(self.k(x)), self.pool(self.v(x))
        kv = self.pool(self.and_kv(self.heads(k), self.heads(v)))
        y = self.pool(self.gate(self.mask(kv), self.heads(q)))
        return join_heads(y, like=x), q
