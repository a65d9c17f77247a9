"""Count one call of one layer: its inputs and its output give a `Layer` of counts.

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
    """The calls of one layer, and the facts about the layer that stay between calls."""

    name: str
    """Dotted name of the layer."""
    kind: Kind
    """Kind of the layer."""
    prober: Prober
    """Reads tensors; all layers of a network share it."""
    counted: list[Layer] = field(default_factory=list)
    """Counts of this batch, one entry per call."""
    _values: list[Values | None] = field(default_factory=lambda: [None, None])
    """Kind of values that each operand held so far."""
    _fan_outs: dict[tuple[torch.Size, torch.Size], FanOut] = field(default_factory=dict)
    """Fan-outs by the shapes of the input and output of one application."""
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
        """Prepare for a batch of B samples, with T timesteps in one call."""
        self._samples, self._timesteps = samples, timesteps
        self.counted, self._image = [], None

    def count(self, module: nn.Module, inputs: list[Tensor], out: Tensor, first: bool) -> None:
        """Count one call.

        Args:
            module: The layer.
            inputs: Input tensors in the order of the layer's signature.
            out: Output of the layer.
            first: Whether it is the first layer with weights.

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
        probe = self.prober(x, before)
        self._values[operand] = probe.values if before is None else widest((before, probe.values))
        return probe

    def _layer(self, x: Tensor, probe: Probe, out: Tensor, **counts: Any) -> Layer:
        """Make a `Layer` with the counts that all kinds have, from an input [T, B, ...]."""
        common: dict[str, Any] = {
            "inputs": x.numel(),
            "nonzero": probe.nonzero,
            "value_sum": probe.value_sum,
            "nonzero_t": probe.nonzero_t,
            "outputs": out.numel(),
        }
        return Layer(
            name=self.name,
            kind=self.kind,
            values=probe.values,
            samples=self._samples,
            timesteps=len(x),
            **(common | counts),
        )

    def _neuron(self, module: nn.Module, inputs: list[Tensor], out: Tensor) -> Layer:
        x = self._fold(out)
        probe = self._probe(x)
        # The counts are whole numbers of at most B*T, so they are exact in float32. `like_sample`
        # undoes the memory order, because this order changes with the batch size.
        per_neuron = like_sample(probe.counts.sum(0)[None], x).flatten().cpu()
        return self._layer(x, probe, out, spikes_of_neuron=per_neuron)

    def _weighted(self, module: Any, inputs: list[Tensor], out: Tensor) -> Layer:
        unfolded = inputs[0]
        axes = 1 if self.kind is Kind.linear else len(module.kernel_size) + 1
        x = self._fold(unfolded, axes)
        probe = self._probe(x)
        shapes = unfolded.shape[unfolded.ndim - axes :], out.shape[out.ndim - axes :]
        if shapes not in self._fan_outs:
            self._fan_outs[shapes] = fan_out(module, unfolded, out)
        fan = self._fan_outs[shapes]
        of_sample, by_value = _operations(fan, probe, x)
        return self._layer(
            x,
            probe,
            out,
            static=self._first and self._stands_still(x),
            dense=fan.dense * applications(module, unfolded),
            dense_padded=dense_padded(module, unfolded, out),
            bias_adds=0 if module.bias is None else out.numel(),
            weights=module.weight.numel(),
            ops=of_sample.sum().item(),
            ops_by_value=by_value,
            ops_of_sample=of_sample,
        )

    def _stands_still(self, x: Tensor) -> bool:
        """Whether the first layer receives the same input at every timestep."""
        if self._image is None:
            self._image = x[:1].clone()
        return x.shape[1:] == self._image.shape[1:] and bool((x == self._image).all())

    def _matmul(self, module: nn.Module, inputs: list[Tensor], out: Tensor) -> Layer:
        a, b = (self._fold(x, 2) for x in inputs[:2])
        probe_a, probe_b = self._probe(a, 0), self._probe(b, 1)
        dense = out.numel() * a.shape[-1]
        pairs = _pairs(a != 0, b != 0)
        spikes = probe_a.values is Values.binary is probe_b.values
        by_value = pairs if spikes else _pairs(a.abs(), b.abs())
        return self._layer(
            a,
            replace(probe_a, values=widest((probe_a.values, probe_b.values))),
            out,
            inputs=a.numel() + b.numel(),
            nonzero=probe_a.nonzero + probe_b.nonzero,
            value_sum=probe_a.value_sum + probe_b.value_sum,
            nonzero_t=probe_a.nonzero_t + probe_b.nonzero_t,
            dense=dense,
            dense_padded=dense,
            operands=(probe_a.values, probe_b.values),
            ops=pairs.sum().item(),
            ops_by_value=by_value.sum().item(),
            ops_left=probe_a.nonzero * (dense // a.numel()),
            ops_right=probe_b.nonzero * (dense // b.numel()),
            ops_of_sample=pairs,
        )

    def _mask(self, module: nn.Module, inputs: list[Tensor], out: Tensor) -> Layer:
        """Count an AND: its inputs are those of the mask, its operations the spikes that pass."""
        mask = self._fold(inputs[0])
        passed = self.prober(self._fold(out), Values.binary)
        probe, gated = self._probe(mask), self._probe(self._fold(inputs[1]), 1)
        probe = replace(probe, values=widest((probe.values, gated.values)))
        counts = {"ops": passed.nonzero, "ops_by_value": passed.nonzero}
        return self._layer(mask, probe, out, ops_of_sample=passed.nonzero_b, **counts)

    def _reduce(self, module: nn.Module, inputs: list[Tensor], out: Tensor) -> Layer:
        x = self._fold(inputs[0])
        probe = self._probe(x)
        counts = {"ops": probe.nonzero, "ops_by_value": probe.magnitude}
        return self._layer(x, probe, out, ops_of_sample=probe.nonzero_b, **counts)

    def _add(self, module: nn.Module, inputs: list[Tensor], out: Tensor) -> Layer:
        """Count a residual addition by its size; reading the membranes would only cost time."""
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


def _operations(fan: FanOut, probe: Probe, x: Tensor) -> tuple[Tensor, float]:
    """Operations of each sample [B], and the total in which an input of k counts k times."""
    if fan.uniform is not None:
        return probe.nonzero_b * fan.uniform, probe.magnitude * fan.uniform
    of_sample = fan.ops(like_sample(probe.counts, x))
    if probe.values is Values.binary:
        return of_sample, of_sample.sum().item()
    return of_sample, fan.ops(like_sample(probe.magnitudes.double(), x)).sum().item()


def _pairs(a: Tensor, b: Tensor) -> Tensor:
    """Sum over the products in a @ b for each sample: sum_k a[:, k] b[k, :], float64 [B].

    For 0/1 masks of nonzero elements, this is the number of pairs of nonzero elements.
    """
    pairs = a.sum(-2, dtype=torch.float64) * b.sum(-1, dtype=torch.float64)
    return pairs.transpose(0, 1).flatten(1).sum(1).cpu()
