"""Find the axes of time and samples in the tensors of a network.

A backbone that runs all timesteps at once gives its layers [T*B, ...] or [T, B, ...]. A loop over
time calls them T times with [B, ...]. The batch tells the number of samples B; the model or the
user tells T, which is not needed for a loop.

T timesteps, B samples.
"""

from torch import Tensor

from saformer.errors import UserError


class EnergyError(UserError):
    """The operations of a network, or of a batch, cannot be counted."""


def fold(x: Tensor, features: int, samples: int, timesteps: int | None) -> Tensor:
    """View a tensor as [T, B, ...], or as [1, B, ...] if it holds one timestep.

    Args:
        x: [T*B, ...], [T, B, ...], or [B, ...] in a loop over time; also [T*B*P, ...] or [B*P, ...]
            with P parts of every sample, such as heads.
        features: Number of last axes that can be neither time nor samples.
        samples: B, at least one.
        timesteps: T of this call (1 in a loop), None if unknown.

    Raises:
        EnergyError: The shape does not fit B and T, or it fits in two ways.
    """
    B, of_t = samples, f" and {timesteps} timesteps" if timesteps else ""
    misfit = f"a tensor {tuple(x.shape)} does not fold into {B} samples{of_t}"
    if x.ndim <= features or not x.numel():
        raise EnergyError(misfit)
    size = len(x)
    if x.ndim - features > 1 and x.shape[1] == B and timesteps in (None, size):
        if timesteps is None and size % B == 0 and B > 1:
            raise EnergyError(
                f"a tensor {tuple(x.shape)} of {B} samples may hold {size} timesteps or {size // B}"
                ": give timesteps=... (1 in a loop over time)"
            )
        return x
    if size == B:
        return x[None]
    steps = timesteps or size // B
    if steps and size % (steps * B) == 0:
        parts = size // (steps * B)
        x = x.unflatten(0, (steps, B) if parts == 1 else (steps, B, parts))
        return x
    if size % B == 0:
        x = x.unflatten(0, (1, B, size // B))
        return x
    raise EnergyError(misfit)
