"""Counting one call of one layer: what it was given and what it made of it become a `Layer`.

T timesteps, B samples, K elements of one sample at one timestep.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from saformer.energy.axes import fold
from saformer.energy.fanout import FanOut, applications, dense_padded, fan_out
from saformer.energy.probe import Probe, Prober, like_sample
from saformer.energy.table import Kind, Layer, Values, widest

WEIGHTED = (Kind.conv, Kind.linear)


@dataclass
class Calls:
    """The calls of one layer, and what is known of it between them."""

    name: str
    """Dotted name of the layer."""
    kind: Kind
    """What it does."""
    prober: Prober
    """Reads tensors, for all layers of a network."""
    counted: list[Layer] = field(default_factory=list)
    """Counts of this batch, call by call."""
    _values: list[Values | None] = field(default_factory=lambda: [None, None])
    """What each operand was seen to hold."""
    _fan_outs: dict[tuple[torch.Size, torch.Size], FanOut] = field(default_factory=dict)
    """By shapes of the input and output of one application."""
    _image: Tensor | None = None
    """First layer only: its input at the first timestep."""
    _first: bool = False
    _samples: int = 0
    _timesteps: int | None = None

    def __post_init__(self) -> None:
        by_kind: dict[Kind, Callable[..., Layer]] = {
            Kind.neuron: self._neuron,
            Kind.conv: self._weighted,
            Kind.linear: self._weighted,
            Kind.matmul: self._matmul,
            Kind.mask: self._mask,
            Kind.sum: self._reduce,
            Kind.max: self._reduce,
            Kind.add: self._add,
        }
        self._count = by_kind[self.kind]

    def reset(self, samples: int, timesteps: int | None) -> None:
        """Get ready for another batch of B samples, T in one call."""
        self._samples, self._timesteps = samples, timesteps
        self.counted, self._image = [], None

    def count(self, module: nn.Module, inputs: list[Tensor], out: Tensor, first: bool) -> None:
        """Count one call.

        Args:
            module: The layer.
            inputs: Tensors that it was given, in the order of its signature.
            out: What it made of them.
            first: It is the first layer with weights.

        Raises:
            EnergyError: A shape does not fit.
            NotFiniteError: A value is NaN or infinite.
        """
        self._first = first
        self.counted.append(self._count(module, inputs, out))

    def _fold(self, x: Tensor, features: int = 1) -> Tensor:
        return fold(x, features, self._samples, self._timesteps)

    def _probe(self, x: Tensor, operand: int = 0) -> Probe:
        before = self._values[operand]
        found = self.prober(x, before)
        self._values[operand] = found.values if before is None else widest((before, found.values))
        return found

    def _layer(self, x: Tensor, found: Probe, out: Tensor, **counts: Any) -> Layer:
        """The counts that all kinds have, of an input [T, B, ...]."""
        given: dict[str, Any] = {
            "inputs": x.numel(),
            "nonzero": found.nonzero,
            "value_sum": found.value_sum,
            "largest": found.largest,
            "nonzero_t": found.nonzero_t,
            "outputs": out.numel(),
        }
        return Layer(
            name=self.name,
            kind=self.kind,
            values=found.values,
            samples=self._samples,
            timesteps=len(x),
            **(given | counts),
        )

    def _neuron(self, module: nn.Module, inputs: list[Tensor], out: Tensor) -> Layer:
        x = self._fold(out)
        found = self._probe(x)
        # Whole numbers of at most B*T, so exact in float32. Their order in memory would not do: it
        # changes with the batch size.
        per_neuron = like_sample(found.counts.sum(0)[None], x).flatten().cpu()
        return self._layer(x, found, out, spikes_of_neuron=per_neuron)

    def _weighted(self, module: Any, inputs: list[Tensor], out: Tensor) -> Layer:
        given = inputs[0]
        axes = 1 if self.kind is Kind.linear else len(module.kernel_size) + 1
        x = self._fold(given, axes)
        found = self._probe(x)
        shapes = given.shape[given.ndim - axes :], out.shape[out.ndim - axes :]
        if shapes not in self._fan_outs:
            self._fan_outs[shapes] = fan_out(module, given, out)
        fan = self._fan_outs[shapes]
        of_sample, by_value = _operations(fan, found, x)
        return self._layer(
            x,
            found,
            out,
            static=self._first and self._stands_still(x),
            dense=fan.dense * applications(module, given),
            dense_padded=dense_padded(module, given, out),
            bias_adds=0 if module.bias is None else out.numel(),
            weights=module.weight.numel(),
            ops=of_sample.sum().item(),
            ops_by_value=by_value,
            ops_of_sample=of_sample,
        )

    def _stands_still(self, x: Tensor) -> bool:
        """Whether the first layer is given the same in every step."""
        if self._image is None:
            self._image = x[:1].clone()
        return x.shape[1:] == self._image.shape[1:] and bool((x == self._image).all())

    def _matmul(self, module: nn.Module, inputs: list[Tensor], out: Tensor) -> Layer:
        a, b = (self._fold(x, 2) for x in inputs[:2])
        found_a, found_b = self._probe(a, 0), self._probe(b, 1)
        dense = out.numel() * a.shape[-1]
        pairs = _pairs(a != 0, b != 0)
        spikes = found_a.values is Values.binary is found_b.values
        by_value = pairs if spikes else _pairs(a.abs(), b.abs())
        return self._layer(
            a,
            replace(found_a, values=widest((found_a.values, found_b.values))),
            out,
            inputs=a.numel() + b.numel(),
            nonzero=found_a.nonzero + found_b.nonzero,
            value_sum=found_a.value_sum + found_b.value_sum,
            largest=max(found_a.largest, found_b.largest),
            nonzero_t=found_a.nonzero_t + found_b.nonzero_t,
            dense=dense,
            dense_padded=dense,
            operands=(found_a.values, found_b.values),
            ops=pairs.sum().item(),
            ops_by_value=by_value.sum().item(),
            ops_left=found_a.nonzero * (dense // a.numel()),
            ops_right=found_b.nonzero * (dense // b.numel()),
            ops_of_sample=pairs,
        )

    def _mask(self, module: nn.Module, inputs: list[Tensor], out: Tensor) -> Layer:
        """An AND; its inputs are those of the mask, its operations the spikes that pass."""
        mask = self._fold(inputs[0])
        passed = self.prober(self._fold(out), Values.binary)
        found, gated = self._probe(mask), self._probe(self._fold(inputs[1]), 1)
        found = replace(found, values=widest((found.values, gated.values)))
        counts = {"ops": passed.nonzero, "ops_by_value": passed.nonzero}
        return self._layer(mask, found, out, ops_of_sample=passed.nonzero_b, **counts)

    def _reduce(self, module: nn.Module, inputs: list[Tensor], out: Tensor) -> Layer:
        x = self._fold(inputs[0])
        found = self._probe(x)
        counts = {"ops": found.nonzero, "ops_by_value": found.magnitude}
        return self._layer(x, found, out, ops_of_sample=found.nonzero_b, **counts)

    def _add(self, module: nn.Module, inputs: list[Tensor], out: Tensor) -> Layer:
        """A residual addition: only its size matters, and reading membranes would cost time."""
        steps = len(self._fold(inputs[0]))
        return Layer(
            name=self.name,
            kind=self.kind,
            values=Values.real,
            samples=self._samples,
            timesteps=steps,
            inputs=2 * out.numel(),
            outputs=out.numel(),
            nonzero_t=torch.zeros(steps, dtype=torch.float64),
            ops_of_sample=torch.zeros(self._samples, dtype=torch.float64),
        )


def _operations(fan: FanOut, found: Probe, x: Tensor) -> tuple[Tensor, float]:
    """Operations of each sample [B], and their total with an input of k counted k times."""
    if fan.uniform is not None:
        return found.nonzero_b * fan.uniform, found.magnitude * fan.uniform
    of_sample = fan.ops(like_sample(found.counts, x))
    if found.values is Values.binary:
        return of_sample, of_sample.sum().item()
    return of_sample, fan.ops(like_sample(found.magnitudes.double(), x)).sum().item()


def _pairs(a: Tensor, b: Tensor) -> Tensor:
    """Pairs of elements that meet in a @ b, by sample: sum_k a[:, k] b[k, :], float64 [B]."""
    pairs = a.sum(-2, dtype=torch.float64) * b.sum(-1, dtype=torch.float64)
    return pairs.transpose(0, 1).flatten(1).sum(1).cpu()
