"""Where did the NaN come from?"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from saformer.generators import apart


def first_nonfinite(backbone: nn.Module, x: Tensor) -> str:
    """The first place in the order of computation that is not finite, in words.

    It leaves the network and the generators as they are, and needs no other rank.

    Args:
        backbone: The network whose loss went bad.
        x: The batch it went bad on.
    """
    if not torch.isfinite(x).all():
        return "the input batch is not finite"
    for name, parameter in backbone.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"the weights of layer {name} are not finite"
    found: list[str] = []
    handles = []
    for name, module in backbone.named_modules():
        if not list(module.children()):

            def note(_module: nn.Module, _args: object, out: Tensor, name: str = name) -> None:
                if not found and not torch.isfinite(out).all():
                    found.append(name)

            handles.append(module.register_forward_hook(note))
    try:
        with torch.no_grad(), apart(), _by_the_batch(backbone):
            backbone(x)
    finally:
        for handle in handles:
            handle.remove()
    return (
        f"layer {found[0]} gave the first value that is not finite"
        if found
        else ("every layer is finite, so the loss itself overflowed")
    )


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
