"""Compute totals of one tensor of spikes or other values in as few passes as possible.

Counting should take a small share of the time of the forward pass, but on a CPU one pass over a
tensor takes as long as a neuron layer. A tensor that is expected to hold spikes is read twice: one
pass sums it over time, the other sums its squares. For zeros and ones both totals are the number of
spikes. For other whole numbers they always differ, and for other values they are equal only by rare
coincidence. So the second pass also checks that the tensor still holds spikes.

All counts are exact: float32 adds whole numbers without error up to 2^24. A sum that may be larger
uses float64, which takes thirty times as long on a CPU.

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
    """Which kind of values the tensor holds."""
    nonzero_t: Tensor
    """Nonzero elements of each timestep, float64 [T]."""
    nonzero_b: Tensor
    """Nonzero elements of each sample, float64 [B]."""
    nonzero: float
    """Nonzero elements of the tensor."""
    value_sum: float
    """Sum of the values."""
    magnitude: float
    """Sum of the absolute values."""
    counts: Tensor
    """Number of nonzero elements over time [B, K], in memory order (see `like_sample`)."""
    magnitudes: Tensor
    """Absolute values summed over time [B, K]."""


class Prober:
    """Computes the totals of tensors, and keeps them while the tensor lives.

    Several layers may receive the output of one neuron layer, so each tensor is read only once.
    Totals are stored with the base of a view. If a tensor is changed in place, its version number
    changes and it is read again. Inference tensors have no version number and are read each time.
    """

    def __init__(self) -> None:
        self._found = WeakTensorKeyDictionary()

    def __call__(self, x: Tensor, known: Values | None = None) -> Probe:
        """Totals of a tensor.

        Args:
            x: Tensor [T, B, ...].
            known: Kind of values that earlier tensors at this place held; None for the first one,
                which is examined fully.

        Raises:
            NotFiniteError: The tensor holds NaN or infinite values.
        """
        rows = _rows(x)
        if x.is_inference() or rows.data_ptr() != x.data_ptr():
            return _probe(rows, known)
        base = x if x._base is None else x._base
        of_base = self._found.setdefault(base, {})
        key = known, x._version, x.storage_offset(), rows.shape, rows.stride()
        if key not in of_base:
            of_base[key] = _probe(rows, known)
        probe: Probe = of_base[key]
        return probe


def like_sample(totals: Tensor, x: Tensor) -> Tensor:
    """View totals [B, K], which are in memory order, with the axes of x's samples: [B, ...]."""
    axes = _axes(x)
    back = [0, *(1 + axes.index(axis) for axis in range(2, x.ndim))]
    return totals.view(-1, *(x.shape[axis] for axis in axes)).permute(back)


def _axes(x: Tensor) -> list[int]:
    """Axes of a sample from the outermost to the innermost in memory.

    With another order, sums of channels_last tensors take ten times as long.
    """
    strides = x.stride()
    return sorted(range(2, x.ndim), key=strides.__getitem__, reverse=True)


def _rows(x: Tensor) -> Tensor:
    """Reshape [T, B, ...] to [T, B, K] in memory order, as a view if possible."""
    rows = x.detach().permute(0, 1, *_axes(x)).reshape(*x.shape[:2], -1)
    return rows if rows.dtype in (torch.float32, torch.float64) else rows.float()


def _probe(rows: Tensor, known: Values | None) -> Probe:
    return (_spikes(rows) if known is Values.binary else None) or _anything(rows, known)


def _spikes(rows: Tensor) -> Probe | None:
    """Totals of a tensor [T, B, K] of spikes; None if it holds other values than 0 and 1."""
    steps, samples, size = rows.shape
    counts = rows.sum(0) if steps > 1 else rows[0]
    of_samples = _sum(counts, -1, most=steps)
    if samples * size <= LARGEST_EXACT:
        squares = torch.stack([torch.dot(step, step) for step in rows.flatten(1).unbind()])
    else:
        squares = rows.square().sum((1, 2), dtype=torch.float64)
    # One transfer for both, because on an accelerator each transfer waits for all queued work.
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
        counts=counts,
        magnitudes=counts,
    )


def _anything(rows: Tensor, known: Values | None) -> Probe:
    """Totals of a tensor [T, B, K] of any values, in several passes."""
    sizes = rows.abs()
    most = sizes.max().item()
    if not math.isfinite(most):
        raise NotFiniteError
    ones = torch.ne(rows, 0, out=torch.empty_like(rows))  # sums of bool would be slower
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
        counts=_sum(ones, 0),
        magnitudes=_sum(sizes, 0, most),
    )


def _sum(x: Tensor, axis: int, most: float = 1) -> Tensor:
    """Sum along an axis; the sum is exact for whole numbers whose size is at most `most`."""
    exact = x.shape[axis] * most < LARGEST_EXACT
    return x.sum(axis, dtype=None if exact else torch.float64)
