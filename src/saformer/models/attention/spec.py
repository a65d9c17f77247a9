"""The sizes and settings from which a block and its attention are built."""

from dataclasses import dataclass

from saformer.models.attention.settings import AttentionConfig
from saformer.models.settings import ModelConfig, NeuronConfig


@dataclass(frozen=True, kw_only=True)
class BlockSpec:
    """Sizes and settings of one block; every attention branch is built from it."""

    dim: int
    """Width D of the block."""
    num_tokens: int
    """Tokens N of its feature map."""
    model: ModelConfig
    """Heads, residual, MLP ratio, place and kernel of the DWC."""
    attention: AttentionConfig
    """Which attention, and its settings."""
    neuron: NeuronConfig
    """Settings of the neurons."""
