"""Marker modules: one operation on spikes each, as a place to hang a forward hook.

They hold no parameters and cost nothing; energy counting and probes find them by type, so a model
written with them can be counted without knowing its name.
"""

from torch import Tensor, nn


class SpikeMatMul(nn.Module):
    """Matrix product of spikes, batch axes first: one accumulate for every pair that meets."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Spikes [..., n, k] and [..., k, m] to counts of pairs [..., n, m]."""
        return a @ b


class SpikeMask(nn.Module):
    """Gate spikes by a binary mask: an AND of two spike tensors that broadcast."""

    def forward(self, mask: Tensor, x: Tensor) -> Tensor:
        """Mask and spikes x, which broadcast, to the spikes that pass."""
        # Autocast on CUDA sums in float32; convert back, because spikes have the dtype of x.
        return mask.to(x.dtype) * x


class SpikeSum(nn.Module):
    """Sum of spikes along `dim` (kept with size one): one accumulate per spike."""

    def forward(self, x: Tensor, dim: int) -> Tensor:
        """Spikes to their counts along `dim`."""
        return x.sum(dim, keepdim=True)


class SpikeMax(nn.Module):
    """Maximum of spikes along `dim` (kept with size one): an OR, no arithmetic."""

    def forward(self, x: Tensor, dim: int) -> Tensor:
        """Spikes to whether any is there along `dim`."""
        return x.amax(dim, keepdim=True)


class ResidualAdd(nn.Module):
    """Add a branch to the residual stream."""

    def forward(self, x: Tensor, branch: Tensor) -> Tensor:
        """Stream x and branch of one shape to their sum."""
        return x + branch
