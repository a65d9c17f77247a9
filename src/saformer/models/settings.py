"""Settings of the models: plain dataclasses that import no torch, so the command line starts fast.

Each class checks itself when it is built and names the setting as it is typed on the command line.
"""

from dataclasses import dataclass, field
from enum import Enum

from saformer.errors import require


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


class WeightSource(str, Enum):
    """Spikes that the SASA mask is computed from; `none` leaves every gate open (attention off)."""

    qk = "qk"
    q = "q"
    k = "k"
    none = "none"


class Aggregate(str, Enum):
    """Axis that SASA sums over: `tokens` gives a channel mask, `channels` a token mask."""

    tokens = "tokens"
    channels = "channels"
    both = "both"


class Operator(str, Enum):
    """How SASA aggregates along its axis."""

    sum = "sum"
    mean = "mean"
    max = "max"


class ApplyTo(str, Enum):
    """Spikes that the SASA mask gates: the key, the query, or the block's spike input."""

    k = "k"
    q = "q"
    x = "x"


class Threshold(str, Enum):
    """Firing threshold of the SASA mask neuron."""

    fixed = "fixed"
    learnable = "learnable"
    fraction = "fraction"


class DWCPlace(str, Enum):
    """Where the depthwise convolution sits in a block."""

    parallel = "parallel"
    series = "series"
    mlp = "mlp"
    none = "none"


class Residual(str, Enum):
    """`membrane`: real-valued stream, spikes into every layer; `sew`: spikes are added."""

    membrane = "membrane"
    sew = "sew"


@dataclass(kw_only=True)
class SurrogateConfig:
    """Derivative that stands in for the step function in the backward pass."""

    name: SurrogateName = SurrogateName.sigmoid
    """Shape of the derivative."""
    alpha: float = 4.0
    """Steepness, in units of 1 / membrane potential."""

    def __post_init__(self) -> None:
        require(self.alpha > 0, "neuron.surrogate.alpha", "be positive", self.alpha)


@dataclass(kw_only=True)
class NeuronConfig:
    """Leaky integrate-and-fire neuron in the field's words."""

    tau: float = 2.0
    """Membrane time constant in timesteps; the decay is beta = 1 - 1/tau."""
    v_threshold: float = 1.0
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
    """How the layer runs over time; `auto` takes `torch` on CPU and `compile` on CUDA."""

    def __post_init__(self) -> None:
        require(self.tau >= 1, "neuron.tau", "be at least 1", self.tau)
        require(self.v_threshold > 0, "neuron.v_threshold", "be positive", self.v_threshold)


@dataclass(kw_only=True)
class AttentionConfig:
    """Spike Aggregation Self-Attention (SASA): a binary mask from query and key gates spikes.

    The paper's equations are not at hand; every field is an axis of our reading (docs/model.md).
    """

    weights: WeightSource = WeightSource.qk
    """Spikes that the mask is computed from."""
    aggregate: Aggregate = Aggregate.tokens
    """Axis that is summed over."""
    operator: Operator = Operator.sum
    """How it is aggregated."""
    apply_to: ApplyTo = ApplyTo.k
    """Spikes that the mask gates."""
    threshold: Threshold = Threshold.fixed
    """Threshold of the mask neuron: fixed, learnable, or a fraction of the largest aggregate."""
    v_threshold: float = 0.5
    """Value of that threshold; with `fraction`, the fraction."""
    qkv_bias: bool = False
    """Bias in the query and key projections."""

    def __post_init__(self) -> None:
        value = self.v_threshold
        require(value > 0, "attention.v_threshold", "be positive", value)
        if self.threshold is Threshold.fraction:
            require(value <= 1, "attention.v_threshold", "be at most 1 as a fraction", value)


@dataclass(kw_only=True)
class DWCConfig:
    """Depthwise convolution module (DWC) of a block."""

    place: DWCPlace = DWCPlace.parallel
    """Beside the mask on the key, after the projection, inside the MLP, or nowhere."""
    kernel_size: int = 3
    """Odd side of the kernel."""

    def __post_init__(self) -> None:
        ok = self.kernel_size >= 1 and self.kernel_size % 2 == 1
        require(ok, "model.dwc.kernel_size", "be odd and positive", self.kernel_size)


@dataclass(kw_only=True)
class ModelConfig:
    """Spiking vision transformer: stem, `depth` blocks of attention and MLP, head."""

    name: str
    """Name shown in results."""
    dim: int
    """Embedding width D."""
    depth: int
    """Number of blocks."""
    num_heads: int
    """Attention heads h; D must be divisible by it."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLP over D."""
    patch_size: int = 4
    """Stride of the stem: 1, 2, 4, 8 or 16; its last log2(patch_size) stages pool by two."""
    residual: Residual = Residual.membrane
    """What the residual stream carries."""
    head_lif: bool = True
    """Put a neuron in front of the head, so that it sees spikes."""
    dwc: DWCConfig = field(default_factory=DWCConfig)
    """Depthwise convolution module."""

    def __post_init__(self) -> None:
        for name in ("dim", "depth", "num_heads"):
            value = getattr(self, name)
            require(value >= 1, f"model.{name}", "be at least 1", value)
        require(
            self.dim % 8 == 0, "model.dim", "be divisible by 8 (the stem's first width)", self.dim
        )
        heads = f"be divisible by model.num_heads={self.num_heads}"
        require(self.dim % self.num_heads == 0, "model.dim", heads, self.dim)
        require(self.mlp_ratio > 0, "model.mlp_ratio", "be positive", self.mlp_ratio)
        ok = self.patch_size in (1, 2, 4, 8, 16)
        require(ok, "model.patch_size", "be 1, 2, 4, 8 or 16", self.patch_size)
