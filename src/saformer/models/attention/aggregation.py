"""A binary mask from spikes that are aggregated over tokens or channels.

T timesteps, B batch, h heads, d channels of a head, N tokens.
"""

from torch import Tensor, nn

from saformer.models.attention.settings import AttentionConfig, Operator, Threshold
from saformer.models.neuron import build_neuron
from saformer.models.settings import NeuronConfig
from saformer.models.spike_ops import SpikeMax, SpikeSum

CHANNELS, TOKENS = -2, -1  # axes of a head-split spike matrix [T, B, h, d, N]


class SpikeAggregation(nn.Module):
    """Binary mask from aggregated spikes along one axis: a = SN(aggregate(w)).

    Args:
        dim: Axis that is aggregated, `CHANNELS` or `TOKENS`.
        length: Size of this axis, which is the largest possible sum.
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
        """Map spikes [T, B, h, d, N] to a mask of spikes with size one along `dim`."""
        mask: Tensor = self.lif(self.reduce(w, self.dim) * self.scale)
        return mask
