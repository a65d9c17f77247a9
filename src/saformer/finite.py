"""Which tensors hold NaN or infinity.

A neuron hides them: a NaN membrane is below every threshold, so what follows, and the loss, stay
finite. Who wants to know must look at the tensors themselves.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def nonfinite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of those that are not finite, in their order; each device is waited for once."""
    of_device: dict[torch.device, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        of_device.setdefault(tensor.device, {})[name] = torch.isfinite(tensor).all()
    finite: dict[str, bool] = {}
    for found in of_device.values():
        finite.update(zip(found, torch.stack(list(found.values())).tolist(), strict=True))
    return [name for name in tensors if not finite[name]]


def named_tensors(node: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor in nested dicts and lists, by dotted name."""
    if isinstance(node, Tensor):
        yield name, node
    elif isinstance(node, Mapping | list | tuple):
        items = node.items() if isinstance(node, Mapping) else enumerate(node)
        for key, value in items:
            yield from named_tensors(value, f"{name}.{key}" if name else str(key))


def shortened(names: list[str]) -> str:
    """The first of several names, and how many there are besides."""
    more = len(names) - 1
    return names[0] + (f" and {more} more" if more else "")
