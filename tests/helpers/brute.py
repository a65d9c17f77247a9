"""Operations counted the slow way: loops over outputs and kernel taps, on recorded tensors.

Nothing here uses a convolution, a gradient or the code under test.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from saformer.energy.counter import MARKERS, NEURONS
from saformer.energy.table import Kind, LayerTable, Values
from saformer.models.spike_ops import ResidualAdd, SpikeMask, SpikeMatMul, SpikeMax, SpikeSum

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)


def to_numpy(x: torch.Tensor) -> np.ndarray:
    return x.detach().double().numpy().copy()


def conv_operations(
    layer: nn.Module, x: np.ndarray, out: np.ndarray, dense=False, padded=False
) -> np.ndarray:
    """Sum of the inputs over all (weight, input) pairs that meet, by leading axis [..., C, H, W].

    With `dense` weights of zero count too, with `padded` all taps, wherever they fall.
    """
    axes = len(layer.kernel_size)
    size, out_size = x.shape[-axes:], out.shape[-axes:]
    weight = (to_numpy(layer.weight) != 0) | dense
    transposed = isinstance(layer, TRANSPOSED)
    total = np.zeros(x.shape[: -axes - 1])
    for place in itertools.product(*(range(n) for n in (size if transposed else out_size))):
        for tap in itertools.product(*(range(k) for k in layer.kernel_size)):
            # Of a transposed convolution `place` is the input and its partner the output.
            partner = tuple(
                p * layer.stride[i] - _left(layer, i) + tap[i] * layer.dilation[i]
                for i, p in enumerate(place)
            )
            if padded:
                total += weight[(slice(None), slice(None), *tap)].size
                continue
            if transposed:
                if all(0 <= p < n for p, n in zip(partner, out_size, strict=True)):
                    meets = weight[(slice(None), slice(None), *tap)].sum(1)  # [C_in]
                    total += x[(..., *place)] @ meets
                continue
            inside = [_inside(p, n, layer.padding_mode) for p, n in zip(partner, size, strict=True)]
            if None not in inside:
                of_group = weight[(slice(None), slice(None), *tap)]  # [C_out, C_in / groups]
                meets = of_group.reshape(layer.groups, -1, of_group.shape[1]).sum(1).reshape(-1)
                total += x[(..., *inside)] @ meets
    return total


def _left(layer: nn.Module, axis: int) -> int:
    if layer.padding == "valid":
        return 0
    if layer.padding == "same":
        return layer.dilation[axis] * (layer.kernel_size[axis] - 1) // 2
    return layer.padding[axis]


def _inside(p: int, n: int, mode: str) -> int | None:
    """The input that a coordinate beyond the border stands for."""
    if 0 <= p < n:
        return p
    return {
        "zeros": None,
        "circular": p % n,
        "replicate": min(max(p, 0), n - 1),
        "reflect": -p if p < 0 else 2 * (n - 1) - p,
    }[mode]


def linear_operations(layer: nn.Linear, x: np.ndarray) -> np.ndarray:
    """Sum of the inputs over all weights that they meet, by leading axis [..., D]."""
    weight = to_numpy(layer.weight) != 0
    return np.stack([x @ row for row in weight]).sum(0)


class Spikes(nn.Module):
    """A neuron that gives back its input: the layers behind it see exactly what a test wants."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@contextmanager
def recording(model: nn.Module) -> Iterator[dict[str, list]]:
    """What every layer, marker and neuron is given and makes of it: (inputs, output) by call."""
    calls: dict[str, list] = {}
    handles = []

    def hook(name):
        def keep(_module, args, kwargs, out):
            inputs = [to_numpy(a) for a in (*args, *kwargs.values()) if torch.is_tensor(a)]
            spikes = out[0] if isinstance(out, tuple) else out
            calls.setdefault(name, []).append((inputs, to_numpy(spikes)))

        return keep

    for name, module in model.named_modules():
        if isinstance(module, (*CONVS, nn.Linear, *MARKERS, *NEURONS, Spikes)):
            handles.append(module.register_forward_hook(hook(name), with_kwargs=True))
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def in_time(tensors: list[np.ndarray], timesteps: int, samples: int) -> np.ndarray:
    """A call with [T, B, ...] or [T*B, ...], or calls step by step with [B, ...], to [T, B, ...].

    Heads and other parts in the batch, [T*B*P, ...], become an axis behind it.
    """
    if len(tensors) > 1 or len(tensors[0]) == samples:
        return np.stack(tensors)
    (x,) = tensors
    if x.shape[:2] == (timesteps, samples):
        return x
    return x.reshape(timesteps, samples, -1, *x.shape[1:]).squeeze(2)


def in_places(calls: list, samples: int) -> list[list]:
    """Calls one for each step belong together; several of all steps are of several places."""
    one_step = all(len(out) == samples for _, out in calls)
    return [calls] if one_step else [[call] for call in calls]


def assert_equals_brute_force(
    table: LayerTable, model: nn.Module, calls: dict[str, list], timesteps: int, samples: int
) -> None:
    """Every field of every layer is what the recorded tensors say."""
    assert [layer.name for layer in table.layers] == list(calls)
    modules = dict(model.named_modules())
    for layer in table.layers:
        expected: dict = {}
        for calls_of_place in in_places(calls[layer.name], samples):
            inputs, outs = zip(*calls_of_place, strict=True)
            operands = [list(of_operand) for of_operand in zip(*inputs, strict=True)]
            x = [in_time(of_operand, timesteps, samples) for of_operand in operands]
            out = in_time(list(outs), timesteps, samples)
            place = _expected(modules[layer.name], x, out) | {"samples": samples}
            expected = _both(expected, place) if expected else place
        for field, value in expected.items():
            counted = getattr(layer, field)
            if isinstance(counted, torch.Tensor):
                counted = counted.numpy()
            where = f"{layer.name}.{field}"
            if field == "value_sum":  # of real numbers it is rounded
                np.testing.assert_allclose(counted, value, rtol=1e-5, atol=1e-3, err_msg=where)
            elif field == "ops_by_value" and layer.values is Values.real:
                np.testing.assert_allclose(counted, value, rtol=1e-5, err_msg=where)
            else:
                np.testing.assert_array_equal(counted, value, err_msg=where)


def _both(one: dict, other: dict) -> dict:
    """Expectations of a module that is used in two places."""
    same = {
        key: one[key] for key in ("kind", "values", "samples", "timesteps", "weights") if key in one
    }
    assert same.items() <= other.items()
    sums = {key: np.add(one[key], other[key]) for key in one if key not in same}
    return sums | same


def _expected(module: nn.Module, x: list[np.ndarray], out: np.ndarray) -> dict:
    if isinstance(module, (*NEURONS, Spikes)):
        return _common(Kind.neuron, out, out) | {
            "spikes_of_neuron": np.count_nonzero(out, (0, 1)).reshape(-1)
        }
    if isinstance(module, ResidualAdd):
        return {"kind": Kind.add, "inputs": 2 * out.size, "outputs": out.size, "ops": 0}
    if isinstance(module, SpikeMatMul):
        return _product(*x, out)
    if isinstance(module, SpikeMask):
        passed = (np.broadcast_to(x[0] != 0, out.shape) & (x[1] != 0)).astype(float)
        return _common(Kind.mask, x[0], out, _class(x[0], x[1])) | _operations(passed, passed)
    if isinstance(module, SpikeSum | SpikeMax):
        kind = Kind.sum if isinstance(module, SpikeSum) else Kind.max
        return _common(kind, x[0], out) | _operations(x[0] != 0, abs(x[0]))
    return _weighted(module, x[0], out)


def _weighted(module: nn.Module, x: np.ndarray, out: np.ndarray) -> dict:
    if isinstance(module, nn.Linear):
        kind, features = Kind.linear, 1
        dense = padded = out.size * module.in_features
    else:
        kind, features = Kind.conv, len(module.kernel_size) + 1
        one = np.ones(x.shape[-features:])
        maps = x.size // one.size
        dense = maps * conv_operations(module, one, out, dense=True).item()
        padded = maps * conv_operations(module, one, out, padded=True).item()

    both = np.stack([x != 0, abs(x)]).astype(float)
    if kind is Kind.linear:
        ops, by_value = linear_operations(module, both)
    else:
        ops, by_value = conv_operations(module, both, out)
    return (
        _common(kind, x, out)
        | _operations(ops, by_value)
        | {
            "dense": dense,
            "dense_padded": padded,
            "bias_adds": 0 if module.bias is None else out.size,
            "weights": module.weight.numel(),
        }
    )


def _product(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> dict:
    meet = np.einsum("...ik,...kj->...ikj", a != 0, b != 0)
    by_value = np.einsum("...ik,...kj->...ikj", abs(a), abs(b))
    k = a.shape[-1]
    both = np.concatenate([a.reshape(*a.shape[:2], -1), b.reshape(*b.shape[:2], -1)], -1)
    return (
        _common(Kind.matmul, both, out)
        | _operations(meet, by_value)
        | {
            "operands": (_class(a), _class(b)),
            "dense": out.size * k,
            "dense_padded": out.size * k,
            "ops_left": np.count_nonzero(a) * b.shape[-1],
            "ops_right": np.count_nonzero(b) * a.shape[-2],
        }
    )


def _common(kind: Kind, x: np.ndarray, out: np.ndarray, values: Values | None = None) -> dict:
    return {
        "kind": kind,
        "values": values or _class(x),
        "timesteps": len(x),
        "inputs": x.size,
        "nonzero": np.count_nonzero(x),
        "value_sum": x.sum(),
        "nonzero_t": [np.count_nonzero(step) for step in x],
        "outputs": out.size,
    }


def _operations(ops: np.ndarray, by_value: np.ndarray) -> dict:
    """Of operations [T, B, ...]."""
    return {
        "ops": ops.sum(),
        "ops_by_value": by_value.sum(),
        "ops_of_sample": ops.sum(axis=tuple(axis for axis in range(ops.ndim) if axis != 1)),
    }


def _class(*tensors: np.ndarray) -> Values:
    if all(np.isin(x, (0, 1)).all() for x in tensors):
        return Values.binary
    if all((x == x.round()).all() for x in tensors):
        return Values.integer
    return Values.real
