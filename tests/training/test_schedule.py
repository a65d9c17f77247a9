"""The learning rate follows timm's formula to the digit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saformer.config.schema import ScheduleName, SchedulerConfig
from saformer.training.schedule import lr_at


def cosine(**changes) -> SchedulerConfig:
    return SchedulerConfig(name=ScheduleName.cosine, **changes)


@pytest.mark.parametrize(
    ("epoch", "lr", "epochs", "warmup", "logged"),
    [
        (20, 1e-3, 400, 20, "9.939e-04"),
        (100, 1e-3, 400, 20, "8.550e-04"),
        (10, 5e-3, 96, 10, "4.8676e-03"),
    ],
)
def test_published_logs(epoch, lr, epochs, warmup, logged):
    """The rates in QKFormer's published CIFAR and DVS logs come out to all their digits."""
    config = cosine(warmup_epochs=warmup, warmup_lr=1e-5, min_lr=1e-5)
    decimals = len(logged.partition("e")[0]) - 2
    assert f"{lr_at(epoch, lr, epochs, config):.{decimals}e}" == logged


@given(
    epochs=st.integers(1, 500),
    cooldown=st.integers(0, 50),
    warmup=st.integers(0, 50),
    share=st.floats(0, 1),
    name=st.sampled_from(ScheduleName),
)
def test_the_rate_stays_between_its_ends(epochs, cooldown, warmup, share, name):
    """At no time is the rate above the peak or below the smaller of its two ends."""
    cooldown = cooldown if name is ScheduleName.cosine else 0  # constant has none
    total = epochs + cooldown + warmup
    config = SchedulerConfig(
        name=name, warmup_epochs=warmup, cooldown_epochs=cooldown, warmup_lr=1e-6, min_lr=1e-5
    )
    rate = lr_at(share * total, 1e-3, total, config)
    assert 1e-6 <= rate <= 1e-3 * (1 + 1e-12)


def test_warm_up_is_linear_and_cool_down_is_flat():
    """Warm-up starts at its rate, cool-down stays at the smallest."""
    config = cosine(warmup_epochs=4, warmup_lr=1e-4, min_lr=1e-5, cooldown_epochs=2)
    rates = [lr_at(epoch, 1e-2, 12, config) for epoch in range(12)]
    assert rates[0] == 1e-4
    assert rates[1] - rates[0] == pytest.approx(rates[3] - rates[2])
    assert rates[10] == rates[11] == pytest.approx(1e-5)


def test_constant_is_constant_after_the_warm_up():
    """The constant schedule holds the peak to the end."""
    config = SchedulerConfig(name=ScheduleName.constant, warmup_epochs=2)
    assert [lr_at(epoch, 0.1, 9, config) for epoch in (2, 5, 9)] == [0.1, 0.1, 0.1]
