"""The backbone, SAFormer: encode, stem, blocks, head.

Presets are configurations (conf/model), not classes. The rivals are presets too, because attention,
stem and residual are settings.

T timesteps, B batch, C image channels, D width, H W height and width, N = H*W tokens, K classes.
"""

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from saformer.errors import require
from saformer.models.attention.branch import AttentionBranch
from saformer.models.attention.settings import AttentionConfig
from saformer.models.attention.spec import BlockSpec
from saformer.models.block import Block
from saformer.models.hierarchy import build_stages
from saformer.models.layers import Layers
from saformer.models.memory import SpikeKeeper
from saformer.models.neuron import build_neuron
from saformer.models.recompute import recomputed
from saformer.models.settings import (
    Encoding,
    MemoryConfig,
    ModelConfig,
    NeuronConfig,
    Recompute,
    SpikeStore,
)
from saformer.models.stem import build_stem


class SAFormer(nn.Module):
    """SAFormer (arXiv 2412.13553): images to logits at every timestep, [T, B, K].

    The input is float images [B, C, H, W] or event frames [B, T, C, H, W]. Images are repeated T
    times (direct encoding) or, with `model.encoding=rate`, turned into T random maps of spikes. The
    network refuses an input of another size than it was built for: convolutions would accept it,
    but masks that depend on the number of tokens would be wrong. A forward pass starts from zero
    state and keeps none.

    Weights are initialised as in Spike-driven Transformer. Convolution and linear weights have a
    normal distribution with standard deviation 0.02, truncated at two standard deviations; biases
    are zero; BatchNorm has scale one and shift zero. The distribution matters little, because
    BatchNorm follows.

    Args:
        model: Sizes of the network.
        attention: Which attention, and its settings.
        neuron: Settings of the neurons.
        in_channels: Image channels C.
        image_size: Side of the image in pixels.
        num_classes: Classes K.
        timesteps: Timesteps T.
        memory: What training keeps for the backward pass; changes no result.

    Raises:
        SettingError: The image cannot be cut into patches of `model.patch_size`.
    """

    def __init__(
        self,
        model: ModelConfig,
        attention: AttentionConfig,
        neuron: NeuronConfig,
        *,
        in_channels: int,
        image_size: int,
        num_classes: int,
        timesteps: int,
        memory: MemoryConfig | None = None,
    ) -> None:
        super().__init__()
        divisible = image_size % model.patch_size == 0
        rule = f"be divisible by model.patch_size={model.patch_size}"
        require(divisible, "dataset.image_size", rule, image_size)
        self.timesteps = timesteps
        self.image_shape = (in_channels, image_size, image_size)
        self.encoding = model.encoding
        num_tokens = (image_size // model.patch_size) ** 2
        if model.stages is None:
            self.stem = build_stem(in_channels, model, neuron)
            spec = BlockSpec(
                dim=model.dim,
                num_tokens=num_tokens,
                model=model,
                attention=attention,
                neuron=neuron,
            )
            self.blocks = nn.Sequential(*(Block(spec) for _ in range(model.depth)))
        else:  # the first patch embedding is the stem; the others are among the blocks
            self.stem, *blocks = build_stages(in_channels, image_size, model, attention, neuron)
            self.blocks = nn.Sequential(*blocks)
        self.head_lif = build_neuron(neuron) if model.head_lif else nn.Identity()
        self.head = nn.Linear(model.dim, num_classes)
        self.apply(_init_weights)
        self.to(memory_format=torch.channels_last)  # 1x1 convolutions and pooling run faster
        self._save_memory(memory or MemoryConfig())

    def _save_memory(self, memory: MemoryConfig) -> None:
        self.recompute_blocks = memory.recompute is Recompute.blocks
        self.keeper = SpikeKeeper(self) if memory.spikes is SpikeStore.bit else None
        if memory.recompute is not Recompute.none:
            in_blocks = set(self.blocks.modules()) if self.recompute_blocks else set()
            for module in self.modules():
                if isinstance(module, Layers | AttentionBranch) and module not in in_blocks:
                    module.recompute = True

    def encode(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] or event frames [B, T, C, H, W] to [T, B, C, H, W].

        With direct encoding, images are repeated. With rate coding, each pixel value in 0..1 is the
        probability of a spike, drawn at each timestep independently, as by
        `snntorch.spikegen.rate`.

        Raises:
            ValueError: The network was built for an input of another shape.
        """
        if x.ndim not in (4, 5) or x.shape[-3:] != self.image_shape:
            shape = ", ".join(map(str, self.image_shape))
            raise ValueError(
                f"the input must be [B, {shape}] or [B, {self.timesteps}, {shape}], for which the "
                f"network was built, not {list(x.shape)}"
            )
        if x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
            x = x.expand(self.timesteps, *x.shape)
            return x if self.encoding is Encoding.direct else torch.bernoulli(x.clamp(0, 1))
        if x.shape[1] != self.timesteps:
            raise ValueError(f"{x.shape[1]} frames were given to a model of T={self.timesteps}")
        return x.transpose(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] or event frames [B, T, C, H, W] to logits [T, B, K]."""
        # In a compiled network, the compiler chooses what to keep.
        learns = self.training and torch.is_grad_enabled() and not torch.compiler.is_compiling()
        with self.keeper.keeping() if self.keeper and learns else nullcontext():
            x = self.stem(self.encode(x))
            for block in self.blocks:
                recompute = self.recompute_blocks and learns
                x = recomputed(block, x, [block]) if recompute else block(x)
            logits: Tensor = self.head(self.head_lif(x.mean((3, 4))))
        return logits


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear) and isinstance(module.weight, nn.Parameter):
        nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
