"""Marker modules: each wraps one operation on spikes, so that forward hooks can observe it.

They have no parameters and cost nothing. Energy counting and probes find them by type, so they can
count any model that uses these modules.
"""

from torch import Tensor, nn


class SpikeMatMul(nn.Module):
    """Matrix product of spikes, batch axes first: one accumulate for every pair of spikes."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Map spikes [..., n, k] and [..., k, m] to counts of pairs [..., n, m]."""
        return a @ b


class SpikeMask(nn.Module):
    """Gate spikes by a binary mask: an AND of two spike tensors that broadcast."""

    def forward(self, mask: Tensor, x: Tensor) -> Tensor:
        """Map mask and spikes x, which broadcast, to the spikes that pass."""
        # Autocast on CUDA sums in float32; convert back, because spikes have the dtype of x.
        return mask.to(x.dtype) * x


class SpikeSum(nn.Module):
    """Sum of spikes along `dim` (kept with size one): one accumulate per spike."""

    def forward(self, x: Tensor, dim: int) -> Tensor:
        """Map spikes to their counts along `dim`."""
        return x.sum(dim, keepdim=True)


class SpikeMax(nn.Module):
    """Maximum of spikes along `dim` (kept with size one): an OR, no arithmetic."""

    def forward(self, x: Tensor, dim: int) -> Tensor:
        """Map spikes to one if there is any along `dim`, else to zero."""
        return x.amax(dim, keepdim=True)


class ResidualAdd(nn.Module):
    """Add a branch to the residual stream."""

    def forward(self, x: Tensor, branch: Tensor) -> Tensor:
        """Add the stream x and a branch of the same shape."""
        return x + branch
