"""Conventions: which of the counted operations an energy estimate charges, and as AC or MAC.

A convention consists only of the fields of `Convention`, so they show how two conventions differ.
`apply` turns a `LayerTable` into accumulates (AC) and multiply-accumulates (MAC) per image:

    events = spikes x their fan-outs inside the image     or     rate x FLOPs with the padding
    AC     = events                                       if the input is spikes
    MAC    = FLOPs or events, as the convention says      if the input has other values

T timesteps, n samples, N tokens, D width, d = D/h; FLOPs are multiply-accumulates of a dense pass
over all T steps. "As recalled" marks a rule that we know from memory and did not re-read in the
paper.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from saformer.energy.settings import require_known
from saformer.energy.table import Kind, Layer, LayerTable, Values

WEIGHTED = (Kind.conv, Kind.linear)
EMPTY = torch.zeros(0, dtype=torch.float64)


class Taps(str, Enum):
    """Whether a kernel tap on padding is charged, though no input element is there."""

    in_image = "in_image"
    padded = "padded"


class Rate(str, Enum):
    """How many events a nonzero input is: its value (an input of k is k events), or one."""

    value = "value"
    nonzero = "nonzero"


class Charge(str, Enum):
    """How a layer is charged: one AC per event, MAC for nonzero inputs only, or dense MAC."""

    ac = "ac"
    mac_nonzero = "mac_nonzero"
    mac_dense = "mac_dense"


class Static(str, Enum):
    """Whether a first layer with a constant image is charged once or at every timestep.

    Its output current is the same at every timestep, so computing it once is enough.
    """

    once = "once"
    per_step = "per_step"


class Products(str, Enum):
    """What a product a @ b of attention costs.

    `pairs`: the pairs of nonzero elements that are multiplied, sum_k nnz(a[:, k]) nnz(b[k, :]).
    `spikes`: every spike of one operand is multiplied with the whole row, fr N^2 D; if both
    operands are spikes, those of the left one count. `fewest`: like `spikes`, but with the sparser
    of two spike operands. `none`: no cost, also for the sums and masks of attention.
    """

    pairs = "pairs"
    spikes = "spikes"
    fewest = "fewest"
    none = "none"


class Head(str, Enum):
    """How the classification head is charged: by its kind of input, always as MAC, or as AC."""

    by_input = "by_input"
    mac = "mac"
    ac = "ac"


@dataclass(frozen=True, kw_only=True)
class Convention:
    """One way of counting; the defaults are `exact`."""

    name: str
    """Name that every result carries."""
    taps: Taps = Taps.in_image
    """Whether taps on padding are charged."""
    rate: Rate = Rate.value
    """How an input of more than one is counted."""
    bias: bool = False
    """Charge one operation for each output's bias, times the rate."""
    static: Static = Static.once
    """How often the first layer is charged for a constant image."""
    integers: Charge = Charge.ac
    """Charge for an input of whole numbers: event counts, or a residual stream that sums spikes."""
    reals: Charge = Charge.mac_dense
    """Charge for an input of any other values: a normalised image, a mean over tokens."""
    products: Products = Products.pairs
    """Charge for the matrix products of attention."""
    masks: bool = False
    """Charge a mask as its rate times its outputs; otherwise an AND of two spikes is free."""
    head: Head = Head.by_input
    """Charge for the classification head."""


EXACT = Convention(name="exact")
"""The operations that an event-driven machine executes. SOP = sum over nonzero inputs x of x times
its fan-out inside the image. A constant image is multiplied once, dense, because its current is the
same at every step. A head on spikes accumulates. This convention omits biases and batch norms
(folded), LIF updates, residual additions, pooling and ANDs."""

SPIKFORMER_PAPER = Convention(
    name="spikformer_paper",
    taps=Taps.padded,
    products=Products.spikes,
    head=Head.mac,
)
"""After Spikformer (arXiv 2209.15425), as recalled: SOP = fr T FLOPs with fr the mean of the input,
E = E_MAC FLOPs(conv1) + E_AC SOPs, and no T at conv1. It charges taps on padding, and omits biases,
LIF updates and masks."""

SPIKINGFORMER_SCRIPT = Convention(
    name="spikingformer_script",
    taps=Taps.padded,
    bias=True,
    static=Static.per_step,
    integers=Charge.mac_dense,
    products=Products.fewest,
    head=Head.mac,
)
"""The energy script in the Spikingformer repository, a fork of syops: (FLOPs + bias) x mean rate,
conv1 T times, inputs of more than two values as dense MAC, and of attention
T h N d^2 (min(fr_k, fr_v) + fr_q). It omits LIF updates, masks and residual additions. We do not
repeat the script's errors (layers chosen by name, a token grid typed by hand)."""

SDT = Convention(
    name="sdt",
    taps=Taps.padded,
    rate=Rate.nonzero,
    static=Static.per_step,
    products=Products.spikes,
    masks=True,
    head=Head.ac,
)
"""After Spike-driven Transformer (arXiv 2307.01694), as recalled: T R FLOPs with R the share of
inputs that are not zero, conv1 with R = 1 T times, the head as AC, and R^ N D for attention. The
authors did not say what R^ is (issue 24 of their repository). Here it is one AC per spike of a sum,
and the rate of a mask's inputs times N D. It omits biases, LIF updates and residual additions. It
has no rule for matrix products, so they follow `spikformer_paper`."""

NEUROBENCH = Convention(
    name="neurobench",
    rate=Rate.nonzero,
    static=Static.per_step,
    integers=Charge.mac_nonzero,
    reals=Charge.mac_nonzero,
    products=Products.none,
)
"""NeuroBench 2.3 `SynapticOperations`: nonzero input x fan-out, AC for spikes and MAC for other
inputs, T times. It omits all of attention (it does not see functional products), biases, pooling,
batch norms, and LIF updates, which it reports separately. NeuroBench skips zero weights; we do not
model this."""

STRICT = Convention(
    name="strict",
    static=Static.per_step,
    integers=Charge.mac_dense,
    head=Head.mac,
)
"""An upper bound of `exact`: every input with values other than zero and one counts as dense MAC,
and conv1 counts T times. It is a bound if whole numbers are below E_MAC/E_AC = 5.1 on average."""

PRESETS = {
    preset.name: preset
    for preset in (EXACT, SPIKFORMER_PAPER, SPIKINGFORMER_SCRIPT, SDT, NEUROBENCH, STRICT)
}


def preset(name: str) -> Convention:
    """The convention of this name.

    Raises:
        SettingError: There is no convention of this name.
    """
    require_known("energy.convention", name, PRESETS)
    return PRESETS[name]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One layer under a convention; all numbers are per image."""

    layer: Layer
    """The counts of the layer."""
    acs: float
    """Accumulates."""
    macs: float = 0.0
    """Multiply-accumulates."""
    dense: float
    """Multiply-accumulates of one dense pass (one step), as in an ANN of this shape."""
    event: bool
    """Whether the count depends on the nonzero inputs; a dense count is the same for every image.
    """
    steps: int
    """Timesteps in which the layer is charged: T, or 1 if a constant image is charged once."""

    @property
    def name(self) -> str:
        """Dotted name of the layer in its network."""
        return self.layer.name

    @property
    def kind(self) -> Kind:
        """What kind of layer it is."""
        return self.layer.kind

    @property
    def stage(self) -> str:
        """Part of the network that the layer belongs to."""
        return self.layer.stage

    @property
    def follows_spikes(self) -> bool:
        """Whether the count grows with the firing rate."""
        return self.event and self.layer.carries_spikes

    @property
    def inputs(self) -> float:
        """Input elements over `steps` (of a neuron: updates)."""
        return self._over_steps(self.layer.inputs)

    @property
    def spikes(self) -> float:
        """Nonzero input elements over `steps` (of a neuron: output spikes)."""
        return self._over_steps(self.layer.nonzero)

    @property
    def outputs(self) -> float:
        """Output elements over `steps`."""
        return self._over_steps(self.layer.outputs)

    @property
    def of_sample(self) -> Tensor:
        """Count of each sample relative to the mean count [n]; empty if the count does not vary.

        It always uses `ops_of_sample`, even if the convention counts by value or by rate.
        """
        ops = self.layer.ops_of_sample
        return ops / ops.mean() if self.event and ops.sum() > 0 else EMPTY

    def _over_steps(self, total: float) -> float:
        return total / self.layer.samples * self.steps / self.layer.timesteps


@dataclass(frozen=True)
class Counted:
    """Operations of a network under one convention, per image."""

    convention: Convention
    rows: list[Row]
    """One row for every layer of the table, in its order."""
    samples: int
    """Samples n that were averaged."""
    timesteps: int
    """Timesteps T."""

    @property
    def acs(self) -> float:
        """Accumulates per image: the synaptic operations (SOPs)."""
        return sum(row.acs for row in self.rows)

    @property
    def macs(self) -> float:
        """Multiply-accumulates per image."""
        return sum(row.macs for row in self.rows)

    @property
    def dense(self) -> float:
        """Multiply-accumulates of an ANN of the same shape, per image."""
        return sum(row.dense for row in self.rows)

    @property
    def rate(self) -> float:
        """Mean rate of the inputs of weight layers that accumulate, weighted by dense MACs."""
        layers = [row for row in self.rows if row.kind in WEIGHTED]
        rows = [row for row in layers if row.follows_spikes and not row.macs]
        dense = sum(row.dense for row in rows)
        return sum(row.layer.rate * row.dense for row in rows) / dense if dense else 0.0


def apply(table: LayerTable, convention: Convention = EXACT) -> Counted:
    """Charge the counts of a table under a convention, per image."""
    timesteps = max((layer.timesteps for layer in table.layers), default=0)
    return Counted(convention, list(_rows(table, convention)), table.samples, timesteps)


def _rows(table: LayerTable, convention: Convention) -> Iterator[Row]:
    for layer in table.layers:
        on_numbers = layer.kind is Kind.matmul and layer.values is Values.real
        if layer.kind in WEIGHTED or (on_numbers and convention.products is not Products.none):
            yield _weighted(layer, convention)
        else:
            yield _on_spikes(layer, convention)


def _weighted(layer: Layer, convention: Convention) -> Row:
    """Charge a layer that multiplies its inputs with numbers: AC for spikes, MAC for the rest."""
    charge = _charge(layer, convention)
    once = layer.static and charge is not Charge.ac and convention.static is Static.once
    steps = 1 if once else layer.timesteps
    flops = layer.dense_padded if convention.taps is Taps.padded else layer.dense
    charged = flops + (layer.bias_adds if convention.bias else 0.0)
    dense = charge is Charge.mac_dense
    count = charged if dense else _events(layer, convention, charged)
    per_image = count / layer.samples * steps / layer.timesteps
    return Row(
        layer=layer,
        acs=per_image if charge is Charge.ac else 0.0,
        macs=0.0 if charge is Charge.ac else per_image,
        dense=flops / layer.samples / layer.timesteps,
        event=not dense,
        steps=steps,
    )


def _charge(layer: Layer, convention: Convention) -> Charge:
    if layer.last and convention.head is not Head.by_input:
        return Charge.ac if convention.head is Head.ac else Charge.mac_dense
    if layer.values is Values.binary:
        return Charge.ac
    # Whole numbers that are the same at every step are the bytes of an image, not event counts.
    if layer.values is Values.integer and not layer.static:
        return convention.integers
    return convention.reals


def _events(layer: Layer, convention: Convention, charged: float) -> float:
    """Operations that inputs trigger: `charged` times a rate, or the fan-outs inside the image."""
    by_value = convention.rate is Rate.value and layer.values is not Values.real
    by_value &= _charge(layer, convention) is Charge.ac  # a MAC multiplies an input once
    rate = layer.mean if by_value else layer.rate
    if convention.taps is Taps.padded:
        return charged * rate
    bias = layer.bias_adds * rate if convention.bias else 0.0
    return (layer.ops_by_value if by_value else layer.ops) + bias


def _on_spikes(layer: Layer, convention: Convention) -> Row:
    """Charge attention on spikes (products, sums, masks); other kinds cost nothing here."""
    acs = dense = 0.0
    if convention.products is not Products.none:
        if layer.kind is Kind.matmul:
            acs, dense = _pairs(layer, convention.products), layer.dense / layer.timesteps
        elif layer.kind is Kind.sum:
            acs = layer.ops
        elif layer.kind is Kind.mask and convention.masks:
            acs = layer.rate * layer.outputs
    n = layer.samples
    return Row(layer=layer, acs=acs / n, dense=dense / n, event=acs > 0, steps=layer.timesteps)


def _pairs(layer: Layer, products: Products) -> float:
    if products is Products.pairs:
        return layer.ops
    left, right = (values is Values.binary for values in layer.operands)
    if left and (not right or products is Products.spikes):
        return layer.ops_left
    if right and not left:
        return layer.ops_right
    return min(layer.ops_left, layer.ops_right)
