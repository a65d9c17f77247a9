"""Fan-outs equal a count by loops over outputs and kernel taps, digit for digit."""

import itertools

import numpy as np
import pytest
import torch
from brute import conv_operations, linear_operations, to_numpy
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

from saformer.energy.fanout import applications, dense_padded, fan_out

GEOMETRIES = list(
    itertools.product(
        [(1, 1), (3, 3), (5, 3)],  # kernel
        [(1, 1), (2, 2), (2, 1)],  # stride
        [(0, 0), (1, 1), (2, 1)],  # padding
        [1, 2],  # dilation
        [1, 2, 4],  # groups
        ["binary", "integer"],
    )
)
CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def values(kind: str, *shape: int) -> torch.Tensor:
    """Spikes at a rate of 30 %, or counts of nought to four."""
    generator = torch.Generator().manual_seed(sum(shape))
    if kind == "binary":
        return (torch.rand(shape, generator=generator) < 0.3).float()
    return torch.randint(0, 5, shape, generator=generator).float()


def assert_exact(layer: nn.Module, x: torch.Tensor, out: torch.Tensor) -> None:
    """Operations by nonzero input and by value, and both dense counts, with no error at all."""
    fan = fan_out(layer, x, out)
    one = np.ones(x.shape[1:])
    for counts in (x != 0, x):
        expected = conv_operations(layer, to_numpy(counts), to_numpy(out))
        np.testing.assert_array_equal(fan.ops(counts.float()), expected)
    assert fan.dense == conv_operations(layer, one, to_numpy(out), dense=True)
    padded = conv_operations(layer, one, to_numpy(out), padded=True)
    assert dense_padded(layer, x, out) == padded * applications(layer, x)
    if fan.uniform is not None:
        np.testing.assert_array_equal(fan.map, fan.uniform)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_every_convolution_geometry(geometry):
    """324 geometries of a convolution are counted without error."""
    kernel, stride, padding, dilation, groups, kind = geometry
    layer = nn.Conv2d(4, 8, kernel, stride, padding, dilation, groups)
    x = values(kind, 2, 4, 9, 6)
    assert_exact(layer, x, layer(x))


@pytest.mark.parametrize("mode", ["zeros", "circular", "reflect", "replicate"])
@pytest.mark.parametrize("padding", [(1, 1), (2, 1), "same", "valid"])
def test_every_padding_mode(mode, padding):
    """What a border stands for is an input like any other, and meets the taps that fall on it."""
    layer = nn.Conv2d(4, 6, (5, 3), padding=padding, padding_mode=mode, groups=2, dilation=(1, 2))
    x = values("integer", 2, 4, 9, 7)
    assert_exact(layer, x, layer(x))


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("pruned", [False, True])
def test_convolutions_and_transposed_ones_of_any_dimension(axes, pruned):
    """Conv and ConvTranspose in one, two and three dimensions, dense or pruned."""
    size = (7, 5, 4)[:axes]
    for kind in (CONVS[axes], TRANSPOSED[axes]):
        layer = kind(4, 6, 3, stride=2, padding=1, groups=2)
        if pruned:
            prune.random_unstructured(layer, "weight", amount=0.4)
        x = values("integer", 2, 4, *size)
        assert_exact(layer, x, layer(x))


@pytest.mark.parametrize("output_size", [(9, 9), (10, 9), (10, 10)])
def test_a_transposed_convolution_of_any_output_size(output_size):
    """The output size that a call asks for decides which taps of the last row are there."""
    layer = nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1)
    x = values("binary", 2, 4, 5, 5)
    assert_exact(layer, x, layer(x, output_size=output_size))


@pytest.mark.parametrize("amount", [0.0, 0.5, 1.0])
def test_linear_layers(amount):
    """Each input of a linear layer triggers its weights that are not zero."""
    layer = nn.Linear(7, 5)
    prune.random_unstructured(layer, "weight", amount=amount)
    x = values("integer", 2, 3, 7)
    fan = fan_out(layer, x, layer(x))
    expected = linear_operations(layer, to_numpy(x)).sum(1)
    np.testing.assert_array_equal(fan.ops(x), expected)
    assert fan.dense == 35
    assert (fan.uniform is None) == (amount == 0.5)
    assert dense_padded(layer, x, layer(x)) == 6 * 35


@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_any_convolution(data):
    """Any size, kernel, stride, padding, dilation and grouping is counted without error."""
    draw = data.draw
    axes = draw(st.integers(1, 2))

    def sizes(least: int, most: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(least, most)) for _ in range(axes))

    groups = draw(st.sampled_from([1, 2]))
    channels = [groups * draw(st.integers(1, 3)) for _ in range(2)]
    kernel, stride, padding, dilation = sizes(1, 3), sizes(1, 3), sizes(0, 3), sizes(1, 2)
    size = sizes(1, 6)
    kind = draw(st.sampled_from([CONVS[axes], TRANSPOSED[axes]]))
    layer = kind(*channels, kernel, stride, padding, dilation=dilation, groups=groups)
    x = values("integer", 2, channels[0], *size)
    try:
        out = layer(x)
    except RuntimeError:  # the kernel is larger than the image
        assume(False)
    assume(out.numel())
    assert_exact(layer, x, out)


def test_parts_of_a_sample_add_up():
    """Counts [B, P, C, H, W] of P maps in each sample give one number for each sample."""
    layer = nn.Conv2d(4, 8, 3, padding=1)
    x = values("binary", 2, 5, 4, 6, 6)
    fan = fan_out(layer, x[0], layer(x[0]))
    one_by_one = torch.stack([fan.ops(x[:, part]) for part in range(5)]).sum(0)
    assert torch.equal(fan.ops(x), one_by_one)


def test_maps_are_exact_beyond_float32():
    """A total above 2^24 that float32 would round, of one channel or of many, is exact."""
    layer = nn.Conv2d(3, 4096, 3, padding=1)
    x = torch.ones(1, 3, 32, 32)
    x[0, 0, 0, 0] = 0
    out = torch.empty(1, 4096, 32, 32)
    assert fan_out(layer, x, out).ops(x).item() == 4096 * (3 * 94**2 - 4)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_maps_are_made_where_no_gradient_is_recorded(mode):
    """Lightning evaluates in inference mode, in which no gradient can be taken; maps are made."""
    layer = nn.Conv2d(2, 3, 3, padding=1, stride=2).bfloat16()
    with mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        x = values("binary", 2, 2, 7, 5)
        fan = fan_out(layer, x, layer(x))
    np.testing.assert_array_equal(
        fan.ops(x), conv_operations(layer, to_numpy(x), np.empty((2, 3, 4, 3)))
    )


def test_making_a_map_draws_no_random_number():
    """The random numbers of the training are the same with and without counting."""
    layer = nn.Conv2d(2, 3, (2, 3), stride=3)
    prune.random_unstructured(layer, "weight", amount=0.5)
    x = values("binary", 1, 2, 11, 13)
    out = layer(x)
    before = torch.get_rng_state()
    fan_out(layer, x, out)
    assert torch.equal(torch.get_rng_state(), before)
