"""Totals of one tensor of spikes or other values, read as few times as possible.

Counting must cost a small share of the forward pass, and on a CPU each pass over a tensor costs
what a neuron layer costs. A tensor known to hold spikes is read twice: once summed over time, once
multiplied with itself. For zeros and ones both totals are the number of spikes. Other whole numbers
always make them differ, other values unless they cancel to the last bit, so the second pass also
shows whether the tensor still holds spikes.

All counts are exact: float32 adds whole numbers without error up to 2^24; where a sum may be
larger, it is float64, which takes a CPU thirty times as long.

T timesteps, B samples, K elements of one sample at one timestep.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from saformer.energy.table import Values

LARGEST_EXACT = 2**24


class NotFiniteError(ValueError):
    """A tensor holds NaN or infinite values."""


@dataclass(frozen=True)
class Probe:
    """Totals of a tensor [T, B, ...]."""

    values: Values
    """What it holds."""
    nonzero_t: Tensor
    """Nonzero elements of each timestep, float64 [T]."""
    nonzero_b: Tensor
    """Nonzero elements of each sample, float64 [B]."""
    nonzero: float
    """Nonzero elements."""
    value_sum: float
    """Sum of the values."""
    magnitude: float
    """Sum of the absolute values."""
    largest: float
    """Largest value."""
    counts: Tensor
    """Nonzero elements summed over time [B, K], in order of memory (`like_sample`)."""
    magnitudes: Tensor
    """Absolute values summed over time [B, K]."""


class Prober:
    """Probes tensors, each once while it lives: what a neuron gives, several layers may be given.

    A view shares the totals of its base; a version that has moved on tells of a change in place.
    Inference tensors have no version, and are read each time.
    """

    def __init__(self) -> None:
        self._found = WeakTensorKeyDictionary()

    def __call__(self, x: Tensor, known: Values | None = None) -> Probe:
        """Totals of a tensor.

        Args:
            x: Tensor [T, B, ...].
            known: What such a tensor was seen to hold before; nothing: look closely.

        Raises:
            NotFiniteError: It holds NaN or infinite values.
        """
        rows = _rows(x)
        if x.is_inference() or rows.data_ptr() != x.data_ptr():
            return _probe(rows, known)
        base = x if x._base is None else x._base
        of_base = self._found.setdefault(base, {})
        key = known, x._version, x.storage_offset(), rows.shape, rows.stride()
        if key not in of_base:
            of_base[key] = _probe(rows, known)
        found: Probe = of_base[key]
        return found


def like_sample(totals: Tensor, x: Tensor) -> Tensor:
    """Totals [B, K] in order of memory with the axes of a sample of x: [B, ...], a view."""
    axes = _axes(x)
    back = [0, *(1 + axes.index(axis) for axis in range(2, x.ndim))]
    return totals.view(-1, *(x.shape[axis] for axis in axes)).permute(back)


def _axes(x: Tensor) -> list[int]:
    """Axes of a sample from the outermost in memory to the innermost.

    Summed in any other order, channels_last takes ten times as long.
    """
    strides = x.stride()
    return sorted(range(2, x.ndim), key=strides.__getitem__, reverse=True)


def _rows(x: Tensor) -> Tensor:
    """[T, B, ...] as [T, B, K] in order of memory, a view where that can be."""
    rows = x.detach().permute(0, 1, *_axes(x)).reshape(*x.shape[:2], -1)
    return rows if rows.dtype in (torch.float32, torch.float64) else rows.float()


def _probe(rows: Tensor, known: Values | None) -> Probe:
    return (_spikes(rows) if known is Values.binary else None) or _anything(rows, known)


def _spikes(rows: Tensor) -> Probe | None:
    """Totals of a tensor [T, B, K] of spikes; nothing if it holds anything but zeros and ones."""
    steps, samples, size = rows.shape
    counts = rows.sum(0) if steps > 1 else rows[0]
    of_samples = _sum(counts, -1, most=steps)
    if samples * size <= LARGEST_EXACT:
        squares = torch.stack([torch.dot(step, step) for step in rows.flatten(1).unbind()])
    else:
        squares = rows.square().sum((1, 2), dtype=torch.float64)
    # Both at once, since on an accelerator each transfer waits for all that came before.
    nonzero_t, nonzero_b = torch.cat([squares, of_samples]).cpu().double().split([steps, samples])
    nonzero = sum(nonzero_b.tolist())
    if nonzero != sum(nonzero_t.tolist()) or not math.isfinite(nonzero):
        return None
    return Probe(
        values=Values.binary,
        nonzero_t=nonzero_t,
        nonzero_b=nonzero_b,
        nonzero=nonzero,
        value_sum=nonzero,
        magnitude=nonzero,
        largest=float(nonzero > 0),
        counts=counts,
        magnitudes=counts,
    )


def _anything(rows: Tensor, known: Values | None) -> Probe:
    """Totals of a tensor [T, B, K] of any values, in several passes."""
    sizes = rows.abs()
    most = sizes.max().item()
    if not math.isfinite(most):
        raise NotFiniteError
    ones = torch.ne(rows, 0, out=torch.empty_like(rows))  # as bool it would be slower
    if torch.equal(rows, ones):
        values = Values.binary
    elif known is not Values.real and torch.equal(rows, rows.round()):
        values = Values.integer
    else:
        values = Values.real
    nonzero_tb = _sum(ones, -1).cpu().double()
    return Probe(
        values=values,
        nonzero_t=nonzero_tb.sum(1),
        nonzero_b=nonzero_tb.sum(0),
        nonzero=nonzero_tb.sum().item(),
        value_sum=_sum(rows, -1, most).sum(dtype=torch.float64).item(),
        magnitude=_sum(sizes, -1, most).sum(dtype=torch.float64).item(),
        largest=rows.max().item(),
        counts=_sum(ones, 0),
        magnitudes=_sum(sizes, 0, most),
    )


def _sum(x: Tensor, axis: int, most: float = 1) -> Tensor:
    """Sum along an axis, exact for whole numbers of at most this size."""
    exact = x.shape[axis] * most < LARGEST_EXACT
    return x.sum(axis, dtype=None if exact else torch.float64)
