"""Time and samples are found in tensors of any shape, or it is said that they cannot be."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saformer.energy.axes import EnergyError, fold

SIZES = st.integers(1, 6)


def numbered(timesteps: int, samples: int, *rest: int) -> torch.Tensor:
    """A tensor [T, B, ...] whose elements are 1000 t + b."""
    t = 1000.0 * torch.arange(timesteps).view(-1, *[1] * (len(rest) + 1))
    return (t + torch.arange(samples).view(1, -1, *[1] * len(rest))).expand(-1, -1, *rest).clone()


def assert_folded(folded: torch.Tensor, x: torch.Tensor, timesteps: int, samples: int) -> None:
    """Element [t, b] is of timestep t and sample b, and nothing was copied."""
    assert folded.shape[:2] == (timesteps, samples)
    for t in range(timesteps):
        for b in range(samples):
            assert (folded[t, b] == 1000 * t + b).all()
    assert folded.data_ptr() == x.data_ptr()
    assert folded.numel() == x.numel()


@given(T=SIZES, B=SIZES, parts=SIZES, features=st.integers(1, 3), split=st.booleans())
def test_all_timesteps_at_once(T, B, parts, features, split):
    """[T, B, ...], [T*B, ...] and [T*B*P, ...] fold into the same when T is known."""
    full = numbered(T, B, parts, *range(2, 2 + features))
    if split:
        assert_folded(fold(full, features, B, T), full, T, B)
    else:
        flat = full.flatten(0, 2)
        assert_folded(fold(flat, features, B, T), flat, T, B)
        flat = full[:, :, 0].flatten(0, 1)
        assert_folded(fold(flat, features, B, T), flat, T, B)


@given(B=SIZES, parts=SIZES, features=st.integers(1, 3))
def test_one_step_of_a_loop(B, parts, features):
    """[B, ...], [B, P, ...] and [B*P, ...] are one step of a loop, which is what timesteps=1 says.

    Among them are the shapes with P = B, which without timesteps are refused.
    """
    full = numbered(1, B, parts, *range(2, 2 + features))
    for x in (full[0], full[0].flatten(0, 1)):
        assert_folded(fold(x, features, B, 1), x, 1, B)


@given(T=st.integers(2, 6), B=st.integers(2, 6), features=st.integers(1, 3))
def test_without_timesteps_the_shape_decides_or_is_refused(T, B, features):
    """[T, B, ...] is recognised unless T is a multiple of B; then it may be [T/B * B, B, ...]."""
    x = numbered(T, B, *range(2, 2 + features))
    if T % B:
        assert_folded(fold(x, features, B, None), x, T, B)
    else:
        with pytest.raises(EnergyError, match=rf"may hold {T} timesteps or {T // B}: give times"):
            fold(x, features, B, None)


@given(T=SIZES, B=SIZES)
def test_without_timesteps_a_flat_tensor_is_all_time(T, B):
    """[T*B, ...] holds T timesteps if nothing else is known."""
    x = numbered(T, B, 3).flatten(0, 1)
    assert_folded(fold(x, 1, B, None), x, T, B)


def test_what_stands_still_is_one_step():
    """The input of a head behind a mean over time is [B, D], although T is known."""
    x = numbered(1, 4, 5)[0]
    assert_folded(fold(x, 1, 4, 4), x, 1, 4)


@pytest.mark.parametrize(
    ("shape", "features", "samples", "timesteps"),
    [
        ((5, 3), 1, 4, None),  # not a multiple of the batch
        ((6, 3), 1, 4, 2),
        ((2, 4, 3), 1, 4, 3),  # two steps where three are known, and five are not a multiple
        ((4,), 1, 4, None),  # one vector without a batch
        ((4, 8, 8), 3, 4, None),  # one image without a batch
        ((0, 3), 1, 4, None),
        ((4, 0), 1, 4, None),
        ((), 0, 4, None),
    ],
)
def test_what_does_not_fold_is_told(shape, features, samples, timesteps):
    """A shape that fits nothing is named in one line, with what was expected of it."""
    with pytest.raises(EnergyError) as error:
        fold(torch.zeros(shape), features, samples, timesteps)
    assert str(shape) in str(error.value) and f"{samples} samples" in str(error.value)
    assert ("timesteps" in str(error.value)) == (timesteps is not None)
    assert "\n" not in str(error.value)
