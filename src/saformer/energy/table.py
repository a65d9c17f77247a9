"""The counts of every layer, which are enough to compute every convention.

The counts do not depend on a convention or on hardware; `conventions` and `costs` are pure
functions of these tables. All counts are totals over the counted samples and timesteps. They are
whole numbers, exact in float64.

T timesteps, n samples.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import torch
from torch import Tensor


class Kind(str, Enum):
    """What a layer does to spikes."""

    conv = "conv"
    linear = "linear"
    matmul = "matmul"
    sum = "sum"
    mask = "mask"
    max = "max"
    add = "add"
    neuron = "neuron"


class Values(str, Enum):
    """Kind of values in a tensor: only zeros and ones, only whole numbers, or any values."""

    binary = "binary"
    integer = "integer"
    real = "real"


@dataclass(kw_only=True)
class Layer:
    """Counts of one layer; for a matmul, `inputs` to `value_sum` describe both operands."""

    name: str
    """Dotted name in the network."""
    kind: Kind
    """Kind of the layer."""
    values: Values
    """Kind of values that the input held."""
    samples: int
    """Samples n."""
    timesteps: int
    """Timesteps T."""
    static: bool = False
    """The input is the same at every timestep (an image shown T times)."""
    last: bool = False
    """The layer is the classification head, the last layer with weights."""
    inputs: float = 0
    """Input elements (of a neuron: updates)."""
    nonzero: float = 0
    """Input elements that are not zero (of a neuron: output spikes)."""
    value_sum: float = 0
    """Sum of the input values."""
    nonzero_t: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    """`nonzero` of each timestep [T]."""
    outputs: float = 0
    """Output elements."""
    dense: float = 0
    """Multiply-accumulates of a dense pass, without the taps on padding."""
    dense_padded: float = 0
    """Multiply-accumulates with the taps on padding, as FLOP counters report them."""
    bias_adds: float = 0
    """Additions of a bias, one for each output element."""
    weights: int = 0
    """Weight elements, without the bias."""
    ops: float = 0
    """Operations that nonzero inputs trigger: the sum of their fan-outs. For a matmul: the pairs of
    nonzero elements that are multiplied; for a sum: the spikes; for a mask: the spikes that pass.
    """
    ops_by_value: float = 0
    """Like `ops`, but an input of k counts k times."""
    operands: tuple[Values, Values] = (Values.binary, Values.binary)
    """For a matmul a @ b: the kinds of values in a and b."""
    ops_left: float = 0
    """For a matmul a @ b: nonzero elements of a times the columns of b."""
    ops_right: float = 0
    """For a matmul a @ b: nonzero elements of b times the rows of a."""
    ops_of_sample: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    """`ops` of each sample [n]."""
    spikes_of_neuron: Tensor = field(default_factory=lambda: torch.zeros(0))
    """For a neuron layer: spikes of each neuron over samples and timesteps, in float32, which is
    exact up to 2^24 steps."""

    @property
    def rate(self) -> float:
        """Share of input elements that are not zero (of a neuron: its firing rate)."""
        return self.nonzero / self.inputs if self.inputs else 0.0

    @property
    def mean(self) -> float:
        """Mean input value, which many scripts call the firing rate."""
        return self.value_sum / self.inputs if self.inputs else 0.0

    @property
    def carries_spikes(self) -> bool:
        """Whether the input varies with the firing rate; a constant image does not."""
        return not self.static and self.values is not Values.real

    @property
    def stage(self) -> str:
        """The part of the network: the first two words of the name, without numbers."""
        words = [word for word in self.name.split(".") if not word.isdigit()]
        return ".".join(words[:2])

    @property
    def dead(self) -> float:
        """For a neuron layer: share of neurons that never fired on the counted samples."""
        return _share(self.spikes_of_neuron == 0)

    @property
    def saturated(self) -> float:
        """For a neuron layer: share of neurons that fired in over 99 % of all steps."""
        return _share(self.spikes_of_neuron > 0.99 * self.samples * self.timesteps)


# Fields that add up over calls of a layer, and over tables of the same network.
SUMMED = (
    *("inputs", "nonzero", "value_sum", "outputs", "dense", "dense_padded", "bias_adds"),
    *("ops", "ops_by_value", "ops_left", "ops_right"),
)


@dataclass
class LayerTable:
    """Counts of all layers, in the order in which they ran."""

    layers: list[Layer]
    params: int = 0
    """Parameters of the network."""

    @property
    def samples(self) -> int:
        """Samples B that were counted."""
        return self.layers[0].samples if self.layers else 0

    @property
    def timesteps(self) -> int:
        """Timesteps T of the network: the most that any layer ran through."""
        return max((layer.timesteps for layer in self.layers), default=0)

    @property
    def not_spikes(self) -> list[str]:
        """Names of the layers after the first whose input is not spikes, though it should be.

        For example, a residual stream that sums spikes gives whole numbers to the next layers, and
        a mean gives fractions to the head.
        """
        first = self.of(Kind.conv, Kind.linear)[:1]
        readers = self.of(*(Kind.conv, Kind.linear, Kind.matmul, Kind.sum, Kind.mask, Kind.max))
        return [
            layer.name
            for layer in readers
            if layer.values is not Values.binary and layer not in first
        ]

    def of(self, *kinds: Kind) -> list[Layer]:
        """The layers of these kinds."""
        return [layer for layer in self.layers if layer.kind in kinds]


def join_calls(calls: Sequence[Layer], timesteps: int) -> Layer:
    """Join the calls of a layer on the same samples to one layer.

    Usually the calls are successive timesteps. If they hold a multiple of T timesteps, the network
    uses the layer in several places. The counts of the places are added up; in a neuron layer, each
    place has its own neurons.

    Args:
        calls: The calls in the order in which they ran.
        timesteps: T of the network.

    Raises:
        ValueError: The calls have different numbers of neurons, so they cannot be joined.
    """
    if len(calls) == 1:
        return calls[0]
    places = max(sum(call.timesteps for call in calls) // timesteps, 1)
    in_time = [calls[place::places] for place in range(places)]
    if any(sum(call.timesteps for call in of_place) != timesteps for of_place in in_time):
        in_time = [calls]
    layers = [
        _join(
            of_place,
            timesteps=sum(call.timesteps for call in of_place),
            nonzero_t=torch.cat([call.nonzero_t for call in of_place]),
            ops_of_sample=sum(call.ops_of_sample for call in of_place),
            spikes_of_neuron=_add(of_place),
        )
        for of_place in in_time
    ]
    return _join(
        layers,
        nonzero_t=sum(layer.nonzero_t for layer in layers),
        ops_of_sample=sum(layer.ops_of_sample for layer in layers),
        spikes_of_neuron=torch.cat([layer.spikes_of_neuron for layer in layers]),
    )


def merge(tables: Iterable[LayerTable]) -> LayerTable:
    """Merge tables of the same network on different samples (batches, ranks) to one table.

    Raises:
        ValueError: The tables differ in network, size of the inputs or timesteps.
    """
    first, *others = tables
    if not others:
        return first
    for other in others:
        if [(layer.name, layer.timesteps) for layer in first.layers] != [
            (layer.name, layer.timesteps) for layer in other.layers
        ]:
            raise ValueError("tables of different networks or timesteps cannot be merged")
    layers = [
        _join(
            same,
            samples=sum(layer.samples for layer in same),
            nonzero_t=sum(layer.nonzero_t for layer in same),
            ops_of_sample=torch.cat([layer.ops_of_sample for layer in same]),
            spikes_of_neuron=_add(same),
        )
        for same in zip(first.layers, *(table.layers for table in others), strict=True)
    ]
    return LayerTable(layers, first.params)


def _join(layers: Sequence[Layer], **others: Any) -> Layer:
    totals: dict[str, Any] = {
        name: sum(getattr(layer, name) for layer in layers) for name in SUMMED
    }
    return replace(
        layers[0],
        **totals,
        values=widest(layer.values for layer in layers),
        operands=(
            widest(layer.operands[0] for layer in layers),
            widest(layer.operands[1] for layer in layers),
        ),
        static=all(layer.static for layer in layers),
        **others,
    )


def _add(layers: Sequence[Layer]) -> Tensor:
    """Add up the spikes of each neuron over layers of the same neurons."""
    if len({layer.spikes_of_neuron.shape for layer in layers}) > 1:
        raise ValueError(f"layer {layers[0].name} has neurons of several sizes")
    return torch.stack([layer.spikes_of_neuron for layer in layers]).sum(0)


def widest(values: Iterable[Values]) -> Values:
    """The least special kind of values; it covers all given kinds."""
    return max(values, key=list(Values).index)


def _share(mask: Tensor) -> float:
    return mask.double().mean().item() if mask.numel() else 0.0
