"""Spiking Self-Attention (SSA): query, key and value, multiplied without a softmax.

Source: Spikformer (arXiv 2209.15425), section 3.3. Spikingformer (arXiv 2304.11954) puts a neuron
before it, and QKFormer (arXiv 2403.16552) uses it in its last stage.

T timesteps, B batch, D width, h heads, d = D/h, H W height and width, N = H*W tokens.
"""

from torch import Tensor, nn

from saformer.errors import require
from saformer.models.attention.branch import AttentionBranch, join_heads, projection
from saformer.models.attention.settings import AttentionName, ProductOrder
from saformer.models.attention.spec import BlockSpec
from saformer.models.layers import freeze
from saformer.models.neuron import build_neuron
from saformer.models.settings import Residual
from saformer.models.spike_ops import SpikeMatMul


class SSA(AttentionBranch):
    """y = SN(s Q K^T V) for every head; the DWC's input is v.

    With the name `random`, it is a control that shows what learned attention contributes: the
    weights of query and key stay at their random initial values; value and output are learned.
    """

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__(spec)
        if spec.attention.batch_leak:
            rule = "be false with model.residual=membrane, where no neuron follows the projection"
            require(spec.model.residual is Residual.sew, "attention.batch_leak", rule, True)
            self.lif_out = OverBatch(self.lif_out)

    def build(self, spec: BlockSpec) -> None:
        config = spec.attention
        self.q, self.k, self.v = (projection(spec) for _ in range(3))
        if config.name is AttentionName.random:
            freeze(self.q[0])
            freeze(self.k[0])
        self.kv_first = config.order is ProductOrder.kv_first
        self.first, self.second = SpikeMatMul(), SpikeMatMul()
        self.scale = config.scale
        self.lif_product = build_neuron(spec.neuron, v_threshold=config.v_threshold)

    def attend(self, x: Tensor) -> tuple[Tensor, Tensor]:
        value = self.v(x)
        q, k, v = self.heads(self.q(x)), self.heads(self.k(x)), self.heads(value)
        # The columns of [d, N] are tokens, so we compute the transpose: (Q K^T V)^T = V^T K Q^T.
        if self.kv_first:
            y = self.second(self.first(v, k.mT), q)
        else:
            y = self.second(v, self.first(k.mT, q))
        return self.lif_product(join_heads(y, like=x) * self.scale), value


class OverBatch(nn.Module):
    """Run a neuron over [T*B] as if all of it were time, as QKFormer's code does.

    So the output for an image depends on the images before it in its batch.
    """

    def __init__(self, lif: nn.Module) -> None:
        super().__init__()
        self.lif = lif

    def forward(self, x: Tensor) -> Tensor:
        """Input [T, B, ...] to spikes of the same shape."""
        y: Tensor = self.lif(x.flatten(0, 1))
        y = y.unflatten(0, x.shape[:2])
        return y
