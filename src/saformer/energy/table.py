"""What was counted: sufficient statistics of every layer, from which all conventions follow.

Nothing here depends on a convention or on hardware; `conventions` and `costs` are pure functions of
these tables. All counts are totals over the counted samples and timesteps: whole numbers, exact in
float64.

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
    """What the input of a layer holds: zeros and ones, whole numbers, or anything."""

    binary = "binary"
    integer = "integer"
    real = "real"


@dataclass(kw_only=True)
class Layer:
    """Counts of one layer; of a matmul, `inputs` to `largest` describe both operands together."""

    name: str
    """Dotted name in the network."""
    kind: Kind
    """What it does."""
    values: Values
    """What its input was seen to hold."""
    samples: int
    """Samples n."""
    timesteps: int
    """Timesteps T."""
    static: bool = False
    """The input is the same at every timestep (an image shown T times)."""
    last: bool = False
    """It is the classification head, the last layer with weights."""
    inputs: float = 0
    """Input elements (of a neuron: updates)."""
    nonzero: float = 0
    """Input elements that are not zero (of a neuron: output spikes)."""
    value_sum: float = 0
    """Sum of the input values."""
    largest: float = 0
    """Largest input value."""
    nonzero_t: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    """`nonzero` of each timestep [T]."""
    outputs: float = 0
    """Output elements."""
    dense: float = 0
    """Multiply-accumulates of a dense pass, padding left out."""
    dense_padded: float = 0
    """The same with the taps on padding, which is what FLOP counters report."""
    bias_adds: float = 0
    """Additions of a bias, one for each output element."""
    weights: int = 0
    """Weight elements, bias left out."""
    ops: float = 0
    """Operations that nonzero inputs trigger: their fan-outs added up. Of a matmul: the pairs of
    nonzero elements that meet; of a sum: the spikes; of a mask: the spikes that pass."""
    ops_by_value: float = 0
    """The same with an input of k counted k times."""
    operands: tuple[Values, Values] = (Values.binary, Values.binary)
    """Of a matmul a @ b: what a and b hold."""
    ops_left: float = 0
    """Of a matmul a @ b: nonzero elements of a times the columns of b."""
    ops_right: float = 0
    """Of a matmul a @ b: nonzero elements of b times the rows of a."""
    ops_of_sample: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    """`ops` of each sample [n]."""
    spikes_of_neuron: Tensor = field(default_factory=lambda: torch.zeros(0))
    """Of a neuron layer: spikes of each of its neurons over samples and timesteps; float32, which
    is exact up to 2^24 steps."""

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
        """Its input varies with the firing rate; an image, also its zeros, does not."""
        return not self.static and self.values is not Values.real

    @property
    def stage(self) -> str:
        """Where in the network it is: its name without numbers, cut after two words."""
        words = [word for word in self.name.split(".") if not word.isdigit()]
        return ".".join(words[:2])

    @property
    def dead(self) -> float:
        """Of a neuron layer: share of neurons that never fired on the counted samples."""
        return _share(self.spikes_of_neuron == 0)

    @property
    def saturated(self) -> float:
        """Of a neuron layer: share of neurons that fired in over 99 % of all steps."""
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
        """Layers behind the first that take spikes by what they are, and were given other values.

        A residual stream that adds spikes up gives its readers whole numbers; a mean gives the head
        fractions.
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
    """One layer of its calls on the same samples.

    Calls follow each other in time, unless they hold T several times: then the layer is used in
    several places, which add up, and of a neuron layer each place has neurons of its own.

    Args:
        calls: In the order in which they ran.
        timesteps: T of the network.

    Raises:
        ValueError: Neurons of several sizes in calls that cannot be told apart.
    """
    if len(calls) == 1:
        return calls[0]
    places = max(sum(call.timesteps for call in calls) // timesteps, 1)
    in_time = [calls[place::places] for place in range(places)]
    if any(sum(call.timesteps for call in own) != timesteps for own in in_time):
        in_time = [calls]
    layers = [
        _join(
            own,
            timesteps=sum(call.timesteps for call in own),
            nonzero_t=torch.cat([call.nonzero_t for call in own]),
            ops_of_sample=sum(call.ops_of_sample for call in own),
            spikes_of_neuron=_add(own),
        )
        for own in in_time
    ]
    return _join(
        layers,
        nonzero_t=sum(layer.nonzero_t for layer in layers),
        ops_of_sample=sum(layer.ops_of_sample for layer in layers),
        spikes_of_neuron=torch.cat([layer.spikes_of_neuron for layer in layers]),
    )


def merge(tables: Iterable[LayerTable]) -> LayerTable:
    """One table of several, of the same network on different samples (batches, ranks).

    Raises:
        ValueError: The networks differ, or the sizes or timesteps of their inputs.
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
        largest=max(layer.largest for layer in layers),
        **others,
    )


def _add(layers: Sequence[Layer]) -> Tensor:
    """Spikes of each neuron, over layers of the same neurons."""
    if len({layer.spikes_of_neuron.shape for layer in layers}) > 1:
        raise ValueError(f"layer {layers[0].name} has neurons of several sizes")
    return torch.stack([layer.spikes_of_neuron for layer in layers]).sum(0)


def widest(values: Iterable[Values]) -> Values:
    """The class that covers all."""
    return max(values, key=list(Values).index)


def _share(mask: Tensor) -> float:
    return mask.double().mean().item() if mask.numel() else 0.0
