"""Totals of a tensor are exact whatever it holds, however it lies in memory, whatever was known."""

import gc
import math
import weakref

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from saformer.energy.probe import NotFiniteError, Probe, Prober, like_sample
from saformer.energy.table import Values

CONTENTS = {
    "silence": [0.0],
    "spikes": [0.0, 1.0],
    "whole": [-3.0, 0.0, 1.0, 2.0, 40.0],
    "real": [-0.5, 0.0, 0.25, 1.0, 2.5],
}
KNOWN = [None, *Values]


def probe(x: torch.Tensor, known: Values | None = None) -> Probe:
    """Totals of a tensor that nobody has read before."""
    return Prober()(x, known)


def spikes(*shape: int) -> torch.Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.5).float()


def layouts(x: torch.Tensor) -> dict[str, torch.Tensor]:
    """The same tensor [T, B, C, H, W] in several orders of memory."""
    T, B = x.shape[:2]
    wide = torch.zeros(*x.shape[:-1], 2 * x.shape[-1], dtype=x.dtype)
    wide[..., ::2] = x
    last = x.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    return {
        "contiguous": x,
        "channels_last": last.unflatten(0, (T, B)),
        "samples first": x.transpose(0, 1).contiguous().transpose(0, 1),
        "transposed": x.mT.contiguous().mT,
        "with gaps": wide[..., ::2],
    }


def assert_equals_numpy(x: torch.Tensor, known: Values | None) -> None:
    """All totals are those of numpy in float64."""
    found, y = probe(x, known), x.double().numpy()
    assert found.values is (
        Values.binary
        if np.isin(y, (0, 1)).all()
        else Values.real
        if (y != y.round()).any() or known is Values.real
        else Values.integer
    )
    sample = tuple(range(2, y.ndim))
    np.testing.assert_array_equal(found.nonzero_t, [np.count_nonzero(step) for step in y])
    np.testing.assert_array_equal(found.nonzero_b, np.count_nonzero(y, (0, *sample)))
    assert found.nonzero == np.count_nonzero(y)
    assert (found.value_sum, found.magnitude) == (y.sum(), abs(y).sum())
    np.testing.assert_array_equal(like_sample(found.counts, x), np.count_nonzero(y, 0))
    np.testing.assert_array_equal(like_sample(found.magnitudes, x), abs(y).sum(0))
    assert found.nonzero_t.dtype == found.nonzero_b.dtype == torch.float64


@given(
    data=st.data(),
    shape=st.tuples(*[st.integers(1, 4)] * 5),
    content=st.sampled_from(sorted(CONTENTS)),
    layout=st.sampled_from(list(layouts(torch.zeros(1, 1, 1, 1, 1)))),
    known=st.sampled_from(KNOWN),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]),
)
@settings(max_examples=200, deadline=None)
def test_any_tensor(data, shape, content, layout, known, dtype):
    """Any content, layout, type and knowledge, right or wrong, gives the totals of numpy.

    Only real values whose sum equals the sum of their squares can pass as the spikes that were
    expected of them, and are left out.
    """
    numbers = data.draw(st.lists(st.sampled_from(CONTENTS[content]), min_size=1, max_size=40))
    x = torch.tensor(numbers).repeat(math.prod(shape))[: math.prod(shape)].view(shape).to(dtype)
    assume(content != "real" or known is not Values.binary or x.sum() != x.square().sum())
    assert_equals_numpy(layouts(x)[layout], known)


@given(
    known=st.sampled_from(KNOWN),
    numbers=st.lists(st.integers(-(2**20), 2**20), min_size=1, max_size=300),
)
@settings(deadline=None)
def test_whole_numbers_never_pass_as_spikes(known, numbers):
    """Whole numbers are told from spikes without exception, and large ones are not rounded."""
    assert_equals_numpy(torch.tensor(numbers, dtype=torch.float32).view(1, 1, -1), known)


@pytest.mark.parametrize("shape", [(3, 2), (3, 2, 5), (3, 2, 5, 4)])
@pytest.mark.parametrize("known", KNOWN)
def test_any_number_of_axes(shape, known):
    """From one element for each sample to maps of parts."""
    assert_equals_numpy((torch.arange(math.prod(shape)) % 3 == 0).float().view(shape), known)


@pytest.mark.parametrize("known", KNOWN)
def test_an_image_shown_in_every_step(known):
    """A tensor expanded over time, which lies in memory once, counts in every step."""
    image = (torch.arange(24.0) % 5).view(2, 3, 2, 2)
    assert_equals_numpy(
        image.contiguous(memory_format=torch.channels_last).expand(4, 2, 3, 2, 2), known
    )


@pytest.mark.parametrize("known", KNOWN)
def test_booleans_count_as_spikes(known):
    """A mask of booleans holds zeros and ones."""
    assert_equals_numpy(torch.arange(24).view(2, 3, 4) % 3 == 0, known)


@pytest.mark.parametrize("known", [None, Values.binary])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_sums_beyond_the_largest_exact_number(known, dtype):
    """Where sums in the tensor's own type overflow (fp16) or round (bf16, fp32), none is lost."""
    size = 70_001 if dtype is not torch.float32 else 2**24 + 3
    x = torch.ones(1, 1, dtype=dtype).expand(1, 1, size)
    found = probe(x, known)
    assert found.values is Values.binary
    assert found.nonzero == found.value_sum == found.magnitude == size
    assert found.nonzero_t.tolist() == found.nonzero_b.tolist() == [size]


def test_sums_over_time_beyond_the_largest_exact_number():
    """Samples are summed over many steps without error."""
    x = torch.ones(65, 1, 2**18)
    x[0, 0, 0] = 0
    found = probe(x, Values.binary)
    assert found.nonzero_b.tolist() == [65 * 2**18 - 1]
    assert found.nonzero_t.tolist() == [2**18 - 1] + [2**18] * 64


def test_steps_beyond_the_largest_exact_number():
    """Each step is exact, also where rounding would cancel over two of them."""
    x = torch.ones(2, 1, 2**24 + 3)
    x[0, 0, :2] = 0
    assert probe(x, Values.binary).nonzero_t.tolist() == [2**24 + 1, 2**24 + 3]


def test_large_values_beyond_the_largest_exact_number():
    """Whole numbers of up to 2^23 add up without error, over a sample and over time."""
    x = torch.full((3, 1, 1001), 2.0**23 - 1)
    found = probe(x)
    assert found.value_sum == found.magnitude == 3003 * (2**23 - 1)
    assert (found.magnitudes == 3 * (2**23 - 1)).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("known", KNOWN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_values_that_are_not_finite(bad, known, dtype):
    """One NaN or infinite value among spikes is an error, also where spikes are expected."""
    x = torch.ones(2, 3, 50, dtype=dtype)
    x[1, 2, 7] = bad
    with pytest.raises(NotFiniteError):
        probe(x, known)


def test_the_tensor_is_only_read():
    """Neither values, nor their version, nor a graph change; inference tensors work as well."""
    x = (torch.rand(2, 3, 4) < 0.5).float().requires_grad_()
    before, version = x.detach().clone(), x._version
    found = probe(x, Values.binary)
    assert torch.equal(x, before) and x._version == version
    assert not found.counts.requires_grad
    with torch.inference_mode():
        inside = probe(before * 1, Values.binary)
    assert torch.equal(inside.counts, found.counts)


def assert_same(found, expected) -> None:
    for name, value in vars(expected).items():
        same = getattr(found, name)
        assert torch.equal(same, value) if torch.is_tensor(value) else same == value, name


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_prober_remembers_what_still_holds(mode):
    """Views of one tensor, changed in place between the probes, have the totals of a fresh look."""
    with mode():
        prober, base = Prober(), spikes(2, 2, 4, 6)
        for change in range(4):
            base[:, change % 2, change] += change - 1
            views = [base, base.mT, base.flatten(2), base[..., :3], base[..., 3:], base[..., ::2]]
            views += [
                base[..., :3, :4],
                base.unflatten(2, (2, 2)),
                base.transpose(0, 1),
                base[:, :1],
                base[:1],
            ]
            for x in views:
                for known in KNOWN * 2:
                    assert_same(prober(x, known), probe(x, known))


@pytest.mark.parametrize("steps", [1, 2])
def test_a_prober_keeps_no_tensor_alive(steps):
    """What was probed is freed with the last one who uses it, as without counting."""
    prober, x = Prober(), spikes(steps, 2, 5)
    alive = weakref.ref(x)
    for known in KNOWN:
        prober(x.flatten(1).unflatten(1, (2, 5)), known)
        prober(x, known)
    del x
    gc.collect()
    assert alive() is None
