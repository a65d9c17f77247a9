"""Where did the NaN come from?"""

import torch
from torch import Tensor, nn


def first_nonfinite(backbone: nn.Module, x: Tensor) -> str:
    """The first place in the order of computation that is not finite, in words.

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
        with torch.no_grad():
            backbone(x)
    finally:
        for handle in handles:
            handle.remove()
    return (
        f"layer {found[0]} gave the first value that is not finite"
        if found
        else ("every layer is finite, so the loss itself overflowed")
    )
