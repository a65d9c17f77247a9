"""A NIR graph run by the equations of NIR's own documentation: what says whether a file is right.

    LIF     tau dv/dt = (v_leak - v) + R I      IF      dv/dt = R I

    z = 1 and v = v_reset where v > v_threshold, else z = 0

in steps of `DT`, by Euler's method, as snnTorch and SpikingJelly read such files.

T timesteps, B batch.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

DT = 1e-4
"""Seconds of a step, for which snnTorch writes time constants; a file does not say it."""


def replay(graph: Any, x: Tensor) -> Tensor:
    """Run a chain over a sequence: [T, B, ...] to [T, B, ...].

    Args:
        graph: A `nir.NIRGraph` of one input, in which each node feeds one other.
        x: Its input at each step.
    """
    follows = dict(graph.edges)
    name = follows[next(iter(graph.inputs))]
    while name not in graph.outputs:
        x = _step_through(graph.nodes[name], x)
        name = follows[name]
    return x


def _step_through(node: Any, x: Tensor) -> Tensor:
    kind = type(node).__name__
    value = {key: torch.as_tensor(array) for key, array in vars(node).items() if _is_array(array)}
    if kind == "Conv2d":
        pair = {
            key: tuple(map(int, getattr(node, key))) for key in ("stride", "padding", "dilation")
        }
        y = F.conv2d(
            x.flatten(0, 1), value["weight"], value["bias"], groups=int(node.groups), **pair
        )
        return y.unflatten(0, x.shape[:2])
    if kind in ("Affine", "Linear"):
        return F.linear(x, value["weight"], value.get("bias"))
    if kind == "LIF":
        rate, leak = DT / value["tau"], value["v_leak"]
    elif kind == "IF":
        rate, leak = torch.tensor(DT), None
    else:
        raise NotImplementedError(f"a NIR node of the kind {kind}")
    v = torch.zeros_like(x[0])
    spikes = []
    for current in x:
        drive = value["r"] * current
        v = v + rate * (drive if leak is None else leak - v + drive)
        z = v > value["v_threshold"]
        v = torch.where(z, value["v_reset"], v)
        spikes.append(z.to(x.dtype))
    return torch.stack(spikes)


def _is_array(value: Any) -> bool:
    return hasattr(value, "dtype") and value.dtype.kind == "f"
