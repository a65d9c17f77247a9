"""Run a part of the network again in the backward pass instead of keeping what it computed."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recomputed(run: Callable[[Tensor], Tensor], x: Tensor, parts: Iterable[nn.Module]) -> Tensor:
    """run(x), of which only x is kept for the backward pass.

    Spikes and gradients are those of a plain call to the last bit where the same kernels give the
    same bits twice, as they do on a CPU. Running statistics of BatchNorm move once.

    Args:
        run: A function of its input and of the parameters and buffers of `parts`.
        x: Its input.
        parts: The modules that it runs.
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
    """BatchNorm moves the statistics of a copy, so that a second run leaves no trace."""
    norms = [m for part in parts for m in part.modules() if isinstance(m, _BatchNorm)]
    kept = [norm._buffers for norm in norms]
    for norm, buffers in zip(norms, kept, strict=True):
        norm._buffers = {
            name: None if buffer is None else buffer.clone() for name, buffer in buffers.items()
        }
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            norm._buffers = buffers
