"""Find the layer that produced the first NaN or infinite value."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from saformer.finite import named_tensors, nonfinite
from saformer.generators import apart


def first_nonfinite(backbone: nn.Module, x: Tensor) -> str:
    """Describe the first place in the computation with a value that is not finite.

    The network and the random generators do not change, and no other rank has to take part.

    Args:
        backbone: The network that produced a value that is not finite.
        x: The batch on which this happened.

    Returns:
        A short description, or an empty string if all values are finite.
    """
    if not torch.isfinite(x).all():
        return "the input batch is not finite"
    if bad := nonfinite(dict(backbone.named_parameters())):
        return f"the weights of layer {bad[0]} are not finite"
    found: list[str] = []
    handles = []
    for name, module in backbone.named_modules():
        if not list(module.children()):

            def note(_module: nn.Module, args: Any, out: Any, name: str = name) -> None:
                for what, tensors in (("was given", args), ("gave", out)):
                    # Check inputs too, because a neuron turns NaN into finite zeros: no spikes.
                    if not found and nonfinite(dict(named_tensors(tensors, what))):
                        found.append(f"layer {name} {what} the first value that is not finite")

            handles.append(module.register_forward_hook(note))
    try:
        # Run eagerly, because compiled code calls no hooks.
        eagerly = torch.compiler.set_stance("force_eager")
        with torch.no_grad(), apart(), _by_the_batch(backbone), eagerly:
            backbone(x)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else ""


@contextmanager
def _by_the_batch(backbone: nn.Module) -> Iterator[None]:
    """Let BatchNorms in training mode use the batch of this rank, without changing statistics."""
    norms = [m for m in backbone.modules() if isinstance(m, _BatchNorm) and m.training]
    saved = [norm._buffers for norm in norms]
    for norm in norms:
        # In evaluation mode it does not communicate with other ranks, and without statistics it
        # uses those of the batch.
        norm.training = False
        norm._buffers = dict.fromkeys(norm._buffers)
    try:
        yield
    finally:
        for norm, buffers in zip(norms, saved, strict=True):
            norm.training = True
            norm._buffers = buffers
