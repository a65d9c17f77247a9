"""Where time and samples are in the tensors of a network.

A backbone that runs all timesteps at once gives its layers [T*B, ...] or [T, B, ...]; a loop over
time calls them T times with [B, ...]. The number of samples B is known from the batch, T from the
model or the user; for a loop T need not be known.

T timesteps, B samples.
"""

from torch import Tensor

from saformer.errors import UserError


class EnergyError(UserError):
    """A network, or what it was given, cannot be counted."""


def fold(x: Tensor, features: int, samples: int, timesteps: int | None) -> Tensor:
    """The same tensor as [T or 1, B, ...], a view.

    Args:
        x: [T*B, ...], [T, B, ...] or, called in every step, [B, ...]; [T*B*P, ...] and [B*P, ...]
            for P parts of every sample, such as heads.
        features: Axes at the end that can be neither time nor samples.
        samples: B, at least one.
        timesteps: T of this call (1 in a loop), if it is known.

    Raises:
        EnergyError: The shape does not fit B and T, or fits in two ways.
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
