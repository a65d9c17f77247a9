"""Run a part of the network again in the backward pass instead of keeping what it computed."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recomputed(run: Callable[[Tensor], Tensor], x: Tensor, parts: Iterable[nn.Module]) -> Tensor:
    """Compute run(x), and keep only x for the backward pass.

    Spikes and gradients equal those of a plain call to the last bit if the kernels are
    deterministic, as on a CPU. The running statistics of BatchNorm are updated only once.

    Args:
        run: A function of its input and of the parameters and buffers of `parts`.
        x: Input of `run`.
        parts: The modules that `run` applies.
    """
    y: Tensor = checkpoint(
        run,
        x,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), _spared_statistics(parts)),
    )
    return y


@contextmanager
def _spared_statistics(parts: Iterable[nn.Module]) -> Iterator[None]:
    """Let BatchNorm update copies of its statistics, so that the second run does not count."""
    norms = [m for part in parts for m in part.modules() if isinstance(m, _BatchNorm)]
    originals = [norm._buffers for norm in norms]
    for norm, buffers in zip(norms, originals, strict=True):
        norm._buffers = {
            name: None if buffer is None else buffer.clone() for name, buffer in buffers.items()
        }
    try:
        yield
    finally:
        for norm, buffers in zip(norms, originals, strict=True):
            norm._buffers = buffers
