"""Settings of the models: plain dataclasses that import no torch, so the command line starts fast.

Each class checks its values when it is built. Errors name a setting as the user types it.
"""

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from saformer.errors import require
from saformer.models.attention.settings import AttentionName
from saformer.names import require_name
from saformer.ranges import at_least, positive, require_ranges, within


class Reset(str, Enum):
    """What happens to the membrane after a spike."""

    hard = "hard"
    soft = "soft"
    none = "none"


class Fire(str, Enum):
    """Whether a membrane exactly at the threshold fires: `ge` yes, `gt` (snnTorch's own) no."""

    ge = "ge"
    gt = "gt"


class Backend(str, Enum):
    """How a neuron layer runs over time; see `saformer.models.neuron`."""

    auto = "auto"
    loop = "loop"
    torch = "torch"
    compile = "compile"


class SurrogateName(str, Enum):
    """Shapes of the surrogate derivative; see `saformer.models.surrogate`."""

    sigmoid = "sigmoid"
    atan = "atan"
    fast_sigmoid = "fast_sigmoid"
    triangular = "triangular"


class DWCPlace(str, Enum):
    """Where the depthwise convolution sits in a block."""

    parallel = "parallel"
    series = "series"
    mlp = "mlp"
    none = "none"


class Encoding(str, Enum):
    """How an image becomes T inputs: repeated T times, or T random spikes at a pixel's rate."""

    direct = "direct"
    rate = "rate"


class StemKind(str, Enum):
    """`sps`: Spikformer's patch splitting; `spikingformer`: neurons first, and no skip."""

    sps = "sps"
    spikingformer = "spikingformer"


class Residual(str, Enum):
    """`membrane`: the stream is real-valued, layers get spikes; `sew`: the stream adds spikes."""

    membrane = "membrane"
    sew = "sew"


class SpikeStore(str, Enum):
    """How a spike is kept for the backward pass: in its dtype, or as a bit."""

    float = "float"
    bit = "bit"


class Recompute(str, Enum):
    """What the backward pass computes again.

    `neurons`: BatchNorm and the membranes after it. `blocks`: every block as a whole, and in other
    layers BatchNorm and the membranes after it.
    """

    none = "none"
    neurons = "neurons"
    blocks = "blocks"


@dataclass(kw_only=True)
class MemoryConfig:
    """What training keeps for the backward pass: less memory costs time, results stay the same."""

    spikes: SpikeStore = SpikeStore.bit
    """How spikes are kept."""
    recompute: Recompute = Recompute.none
    """What is computed again instead of kept."""


@dataclass(kw_only=True)
class SurrogateConfig:
    """Derivative that stands in for the step function in the backward pass."""

    name: SurrogateName = SurrogateName.sigmoid
    """Shape of the derivative."""
    alpha: float = field(default=4.0, metadata=positive())
    """Steepness, in units of 1 / membrane potential."""

    def __post_init__(self) -> None:
        require_ranges(self, "neuron.surrogate")


@dataclass(kw_only=True)
class NeuronConfig:
    """Settings of a leaky integrate-and-fire neuron."""

    tau: float | None = field(default=2.0, metadata=at_least(1, most=10**6))
    """Membrane time constant in timesteps, with the decay beta = 1 - 1/tau; null: no decay (IF)."""
    v_threshold: float = field(default=1.0, metadata=positive())
    """Membrane potential at which the neuron fires."""
    reset: Reset = Reset.hard
    """Membrane after a spike: to zero, minus the threshold, or untouched."""
    surrogate: SurrogateConfig = field(default_factory=SurrogateConfig)
    """Surrogate derivative of the spike."""
    detach_reset: bool = True
    """Keep the reset out of the gradient."""
    decay_input: bool = True
    """Scale the input by 1/tau, as SpikingJelly's LIFNode does."""
    fire: Fire = Fire.ge
    """Fire at the threshold (ge) or only above it (gt)."""
    learnable_tau: bool = False
    """Learn one tau per layer (PLIF)."""
    backend: Backend = Backend.auto
    """How the layer runs over time; `auto` uses `torch` on CPU and `compile` on CUDA."""
    layer: str | None = None
    """Dotted name of a neuron of your own (docs/extend.md); null: `MultiStepLeaky`."""
    options: dict[str, Any] = field(default_factory=dict)
    """Arguments of `layer`, besides those that come from the other settings."""

    def __post_init__(self) -> None:
        require_ranges(self, "neuron")
        rule = "stay {} with neuron.layer=null, which does not read it"
        require(not self.options or self.layer is not None, "neuron.options", rule, self.options)
        if self.tau is None:
            for name in ("decay_input", "learnable_tau"):
                rule = "be false with neuron.tau=null, because there is no tau"
                require(not getattr(self, name), f"neuron.{name}", rule, getattr(self, name))


@dataclass(kw_only=True)
class DWCConfig:
    """Depthwise convolution module (DWC) of a block."""

    place: DWCPlace = DWCPlace.parallel
    """Beside the attention, after its projection, inside the MLP, or nowhere."""
    kernel_size: int = field(default=3, metadata=at_least(1, most=255))
    """Odd side of the kernel."""

    def __post_init__(self) -> None:
        require_ranges(self, "model.dwc")
        require(
            self.kernel_size % 2 == 1,
            "model.dwc.kernel_size",
            "be odd and positive",
            self.kernel_size,
        )


@dataclass(kw_only=True)
class StageConfig:
    """One stage of a hierarchical backbone: a patch embedding, then `depth` blocks."""

    divide: int = field(metadata=at_least(1, most=16_384))
    """Divisor of model.dim that gives the width of the stage."""
    depth: int = field(metadata=at_least(1, most=1024))
    """Blocks of the stage."""
    attention: AttentionName | None
    """Attention of its blocks, with its default settings; null: the `attention` group."""
    embed: list[int] = field(metadata=at_least(1, most=16_384))
    """Divisors of the stage's width that give the widths of the embedding's 3x3 convolutions."""
    pool: list[bool]
    """For each of these convolutions, whether a pooling by two follows it."""
    skip_from: int = field(metadata=at_least(0, most=1024))
    """The skip bypasses the convolutions from this one on, counted from 0."""

    def __post_init__(self) -> None:
        require_ranges(self, "model.stages")
        rule = "have attention: null for one of your own, which is set in the `attention` group"
        ok = self.attention is not AttentionName.custom
        require(ok, "model.stages", rule, self.attention)
        rule = "have an embed that ends with 1, since the last convolution has the stage's width"
        require(self.embed[-1:] == [1], "model.stages", rule, self.embed)
        ok = len(self.pool) == len(self.embed)
        rule = "have as many values in pool as in embed in every stage"
        require(ok, "model.stages", rule, self.pool)
        ok = self.skip_from < len(self.embed)
        rule = "have a skip_from below the number of values in embed"
        require(ok, "model.stages", rule, self.skip_from)


@dataclass(kw_only=True)
class ModelConfig:
    """Spiking vision transformer: stem, `depth` blocks of attention and MLP, head."""

    name: str
    """Name shown in results."""
    in_channels: int = field(default=3, metadata=at_least(1, most=1024))
    """Channels C of the images that the preset is for. Only `create_model` reads this; a training
    uses the channels of its dataset."""
    image_size: int = field(default=32, metadata=at_least(1, most=16_384))
    """Side in pixels of the images that the preset is for; only `create_model` reads this."""
    dim: int = field(metadata=at_least(1, most=16_384))
    """Embedding width D."""
    depth: int = field(metadata=at_least(1, most=1024))
    """Number of blocks."""
    num_heads: int = field(metadata=at_least(1, most=1024))
    """Attention heads h; D must be divisible by it."""
    mlp_ratio: float = field(default=4.0, metadata=positive(most=64))
    """Hidden width of the MLP, divided by D."""
    patch_size: int = 4
    """Stride of the stem: 1, 2, 4, 8 or 16; its last log2(patch_size) stages pool by two."""
    encoding: Encoding = Encoding.direct
    """How an image becomes T inputs; event frames already are T inputs."""
    stem: StemKind = StemKind.sps
    """How images become tokens."""
    stem_depth: int = field(default=4, metadata=within(1, 4))
    """Stages of the stem, 1 to 4; the widths double from one to the next, up to D."""
    residual: Residual = Residual.membrane
    """What the residual stream carries."""
    head_lif: bool = True
    """Put a neuron before the head, so that the head gets spikes."""
    dwc: DWCConfig = field(default_factory=DWCConfig)
    """Depthwise convolution module."""
    stages: list[StageConfig] | None = None
    """Stages of a hierarchical backbone, which has no stem; null: a stem and equal blocks."""

    def __post_init__(self) -> None:
        require_ranges(self, "model")
        require_name("model.name", self.name)
        require(
            self.dim % 8 == 0, "model.dim", "be divisible by 8 (the stem's first width)", self.dim
        )
        heads = f"be divisible by model.num_heads={self.num_heads}"
        require(self.dim % self.num_heads == 0, "model.dim", heads, self.dim)
        narrow = self.dim // max((stage.divide for stage in self.stages or ()), default=1)
        rule = f"be at least 1/{narrow}, so that every MLP has a hidden width"
        require(int(narrow * self.mlp_ratio) >= 1, "model.mlp_ratio", rule, self.mlp_ratio)
        ok = self.patch_size in (1, 2, 4, 8, 16)
        require(ok, "model.patch_size", "be 1, 2, 4, 8 or 16", self.patch_size)
        if self.stages is not None:
            self._check_stages(self.stages)
        pools = int(math.log2(self.patch_size))
        rule = f"be at least {pools} for model.patch_size={self.patch_size}"
        require(self.stem_depth >= pools, "model.stem_depth", rule, self.stem_depth)
        ok = self.stem is StemKind.sps or self.residual is Residual.membrane
        rule = "be membrane with model.stem=spikingformer, whose output is a membrane"
        require(ok, "model.residual", rule, self.residual)

    def _check_stages(self, stages: list[StageConfig]) -> None:
        blocks = sum(stage.depth for stage in stages)
        rule = f"be {blocks}, the sum of the depths in model.stages"
        require(self.depth == blocks, "model.depth", rule, self.depth)
        stride = 2 ** sum(sum(stage.pool) for stage in stages)
        rule = f"be {stride}, the stride of model.stages"
        require(self.patch_size == stride, "model.patch_size", rule, self.patch_size)
        for stage in stages:
            parts = stage.divide * math.lcm(self.num_heads, *stage.embed)
            rule = f"be divisible by {parts} for the widths of model.stages"
            require(self.dim % parts == 0, "model.dim", rule, self.dim)
        rule = "end with a stage of divide: 1"
        require(stages[-1].divide == 1, "model.stages", rule, stages[-1].divide)
        rule = "be sew with model.stages, whose patch embeddings output spikes"
        require(self.residual is Residual.sew, "model.residual", rule, self.residual)
        rule = "stay 4 with model.stages, which have no stem"
        require(self.stem_depth == 4, "model.stem_depth", rule, self.stem_depth)
        rule = "stay sps with model.stages, which have no stem"
        require(self.stem is StemKind.sps, "model.stem", rule, self.stem)
