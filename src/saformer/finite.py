"""Find tensors that contain NaN or infinite values.

A neuron hides such values: a NaN membrane never exceeds the threshold, so the neuron outputs finite
zeros, and the loss can be finite too. So one must check the tensors themselves.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def nonfinite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors with values that are not finite; waits only once for each device."""
    of_device: dict[torch.device, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        of_device.setdefault(tensor.device, {})[name] = torch.isfinite(tensor).all()
    finite: dict[str, bool] = {}
    for flags in of_device.values():
        finite.update(zip(flags, torch.stack(list(flags.values())).tolist(), strict=True))
    return [name for name in tensors if not finite[name]]


def named_tensors(node: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor in nested dicts and lists, with its dotted name."""
    if isinstance(node, Tensor):
        yield name, node
    elif isinstance(node, Mapping | list | tuple):
        items = node.items() if isinstance(node, Mapping) else enumerate(node)
        for key, value in items:
            yield from named_tensors(value, f"{name}.{key}" if name else str(key))


def shortened(names: list[str]) -> str:
    """The first of several names, and the number of the others."""
    more = len(names) - 1
    return names[0] + (f" and {more} more" if more else "")
