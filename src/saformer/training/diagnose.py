"""Where did the NaN come from?"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from saformer.finite import named_tensors, nonfinite
from saformer.generators import apart


def first_nonfinite(backbone: nn.Module, x: Tensor) -> str:
    """The first place in the order of computation that is not finite, in words; or nothing.

    It leaves the network and the generators as they are, and needs no other rank.

    Args:
        backbone: The network that went bad.
        x: The batch it went bad on.
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
                    # A neuron is given NaN and gives no spikes.
                    if not found and nonfinite(dict(named_tensors(tensors, what))):
                        found.append(f"layer {name} {what} the first value that is not finite")

            handles.append(module.register_forward_hook(note))
    try:
        # Compiled code has no hooks.
        eagerly = torch.compiler.set_stance("force_eager")
        with torch.no_grad(), apart(), _by_the_batch(backbone), eagerly:
            backbone(x)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else ""


@contextmanager
def _by_the_batch(backbone: nn.Module) -> Iterator[None]:
    """BatchNorm that trains normalises by the batch of this rank, and moves no statistics."""
    norms = [m for m in backbone.modules() if isinstance(m, _BatchNorm) and m.training]
    kept = [norm._buffers for norm in norms]
    for norm in norms:
        # In evaluation it asks no other rank, and without statistics it takes those of the batch.
        norm.training = False
        norm._buffers = dict.fromkeys(norm._buffers)
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            norm.training = True
            norm._buffers = buffers
