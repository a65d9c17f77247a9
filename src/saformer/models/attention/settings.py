"""Settings of the attention of a block; like `saformer.models.settings`, it imports no torch."""

from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

from saformer.errors import require
from saformer.ranges import at_least, positive, require_ranges


class AttentionName(str, Enum):
    """What mixes the tokens of a block; docs/model.md has the equations."""

    sasa = "sasa"
    ssa = "ssa"
    sdsa = "sdsa"
    qkta = "qkta"
    qkca = "qkca"
    random = "random"
    identity = "identity"
    pooling = "pooling"
    dwconv = "dwconv"
    custom = "custom"


class ProductOrder(str, Enum):
    """Which product SSA computes first, (Q K^T) V or Q (K^T V): only the cost differs."""

    qk_first = "qk_first"
    kv_first = "kv_first"


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


_sasa, _ssa, _random = AttentionName.sasa, AttentionName.ssa, AttentionName.random
_projected = (_sasa, _ssa, AttentionName.sdsa, AttentionName.qkta, AttentionName.qkca, _random)
READ_BY = {
    **dict.fromkeys(("weights", "aggregate", "operator", "apply_to", "threshold"), (_sasa,)),
    **dict.fromkeys(("v_threshold", "qkv_bias"), _projected),
    **dict.fromkeys(("scale", "order", "batch_leak"), (_ssa, _random)),
    "erode": (AttentionName.sdsa,),
    "kernel_size": (AttentionName.pooling, AttentionName.dwconv),
    **dict.fromkeys(("branch", "options"), ()),
}
"""Attentions that read a field of `AttentionConfig`; `custom` may read all of them."""


@dataclass(kw_only=True)
class AttentionConfig:
    """What mixes the tokens of a block: SASA, a rival's attention, or a control.

    We do not have SASA's equations; its fields are the choices of our reading (docs/model.md). A
    field that the chosen attention does not read must stay at its default.
    """

    name: AttentionName = AttentionName.sasa
    """Which attention or control."""
    weights: WeightSource = WeightSource.qk
    """SASA: spikes that the mask is computed from."""
    aggregate: Aggregate = Aggregate.tokens
    """SASA: axis that is summed over."""
    operator: Operator = Operator.sum
    """SASA: how spikes are aggregated along this axis."""
    apply_to: ApplyTo = ApplyTo.k
    """SASA: spikes that the mask gates."""
    threshold: Threshold = Threshold.fixed
    """SASA: threshold of the mask neuron: fixed, learnable, or a fraction of the largest sum."""
    v_threshold: float = field(default=0.5, metadata=positive())
    """Threshold of the neuron on the mask (SSA: on the product); with `fraction`, the fraction."""
    qkv_bias: bool = False
    """Bias in the projections to query, key and value."""
    scale: float = field(default=0.125, metadata=positive())
    """SSA: factor on the product."""
    order: ProductOrder = ProductOrder.qk_first
    """SSA: which of its two products comes first."""
    batch_leak: bool = False
    """SSA: repeat a defect of QKFormer's code, whose output neuron treats the batch as time."""
    erode: bool = False
    """SDSA: 3x3 max-pooling of its spikes, as in the original code for CIFAR10-DVS."""
    kernel_size: int = field(default=3, metadata=at_least(1, most=255))
    """Pooling and dwconv: odd side of the kernel."""
    branch: str | None = None
    """Custom: dotted name of a class of your own (docs/extend.md)."""
    options: dict[str, Any] = field(default_factory=dict)
    """Custom: arguments of `branch`, besides those that every branch gets."""

    def __post_init__(self) -> None:
        require_ranges(self, "attention")
        custom = self.name is AttentionName.custom
        rule = "be module.Class with attention.name=custom"
        require(not custom or self.branch is not None, "attention.branch", rule, "null")
        for setting in fields(self):
            name, value = setting.name, getattr(self, setting.name)
            default = {} if name == "options" else setting.default
            ok = custom or value == default or self.name in READ_BY.get(name, (self.name,))
            typed = default.value if isinstance(default, Enum) else default
            typed = "null" if typed is None else typed
            rule = f"stay {typed} with attention.name={self.name.value}, which does not read it"
            require(ok, f"attention.{name}", rule, value)
        value = self.v_threshold
        if self.threshold is Threshold.fraction:
            require(value <= 1, "attention.v_threshold", "be at most 1 as a fraction", value)
        require(
            self.kernel_size % 2 == 1,
            "attention.kernel_size",
            "be odd and positive",
            self.kernel_size,
        )
