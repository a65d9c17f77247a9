"""No number of the settings is taken that cannot be meant, and none ends in a traceback."""

import math
from dataclasses import is_dataclass
from types import UnionType
from typing import get_args, get_origin, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mostly_slow import mostly_slow
from omegaconf import DictConfig, OmegaConf

from saformer.config.check import check
from saformer.config.overrides import compose
from saformer.config.schema import Config
from saformer.errors import SettingError


def numbers(schema: type = Config, prefix: str = ""):
    """Dotted names of all numbers in the schema, with their type; of lists, the first item."""
    for name, kind in get_type_hints(schema).items():
        yield from _of(prefix + name, kind)


def _of(name: str, kind):
    if get_origin(kind) is UnionType:
        kind = next(one for one in get_args(kind) if one is not type(None))
    if get_origin(kind) is list:
        yield from _of(f"{name}[0]", get_args(kind)[0])
    elif is_dataclass(kind):
        yield from numbers(kind, f"{name}.")
    elif kind in (int, float):
        yield name, kind


NUMBERS = dict(numbers())
SIGNED = {"loss.tet_mean", "dataset.mean[0]"}
"""Settings that may be negative."""
EXTREMES = (math.nan, math.inf, -1, 10**12)


@pytest.fixture(scope="module")
def composed() -> DictConfig:
    """A configuration in which every number of the schema stands."""
    words = ("dataset=cifar10", "augment=none", "model=qkformer_4_384", "scheduler.warmup_epochs=0")
    config = compose(list(words))
    config.augment.resized_crop = [0.08, 1.0]
    return config


def answer(composed: DictConfig, name: str, value: float) -> str | None:
    """What is said to a value of a setting; None if it is taken."""
    changed = composed.copy()
    OmegaConf.update(changed, name, value)
    try:
        check(changed)
    except SettingError as error:
        return str(error)
    return None


def hold(composed: DictConfig, name: str, value: float) -> None:
    """A value is taken only where it can be meant, and else refused by name in one line."""
    kind, said = NUMBERS[name], answer(composed, name, value)
    if said is not None:
        typed = name.replace("[0]", "")
        assert (typed in said or typed.rpartition(".")[0] in said) and "\n" not in said
        assert kind is int or value not in (math.inf, -math.inf) or "be finite" in said
        return
    assert math.isfinite(value)
    assert value >= 0 or name in SIGNED
    assert kind is float or value < 2**32


def test_there_are_numbers_to_look_at(composed):
    """The walk finds numbers in lists, nested settings and lists of settings; all are set."""
    assert {"dataset.mean[0]", "neuron.tau", "model.stages[0].embed[0]"} < set(NUMBERS)
    assert len(NUMBERS) > 50
    for name in NUMBERS:
        assert OmegaConf.select(composed, name) is not None or answer(composed, name, 1) is None


@pytest.mark.parametrize("name", mostly_slow(NUMBERS, 3))
def test_extremes_of_every_number(composed, name):
    """NaN, infinity, negative and far too large values of each number in the schema."""
    for value in EXTREMES:
        hold(composed, name, value)


EDGES = st.sampled_from((*EXTREMES, -math.inf, 0, 1, 2**32, 10**400))
ANY = st.sampled_from(sorted(NUMBERS)).flatmap(
    lambda name: st.tuples(st.just(name), EDGES | st.floats() | st.integers())
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(ANY)
def test_any_value_of_any_number(composed, drawn):
    """Whatever is typed is taken or refused by name, never a traceback."""
    hold(composed, *drawn)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("dataset.mean", [math.nan], "dataset.mean must be finite, not [nan]"),
        ("dataset.std", [0.2, math.inf, 0.2], "dataset.std must be finite, not [0.2, inf, 0.2]"),
        ("optimizer.eps", -1, "optimizer.eps must be positive, not -1.0"),
        ("optimizer.lr_batch", 0, "optimizer.lr_batch must be at least 1 or null, not 0"),
        (
            "loss.tet_mean",
            10**400,
            "loss.tet_mean must be 0 or 1e-38 to 1e+38 in size, which float32 can hold, "
            f"not {10**400}",
        ),
        (
            "attention.scale",
            1e-60,
            "attention.scale must be 0 or 1e-38 to 1e+38 in size, which float32 can hold, "
            "not 1e-60",
        ),
        ("timesteps", 10_001, "timesteps must be at most 10000, not 10001"),
        ("augment.shear", 90, "augment.shear must be in [0, 90), not 90.0"),
        ("dataset.crop_pct", 0, "dataset.crop_pct must be above 0 and at most 1, not 0.0"),
        ("trainer.devices", "4000", "trainer.devices must be at most 1024, not 4000"),
        ("trainer.num_nodes", 10**12, f"trainer.num_nodes must be at most 10000, not {10**12}"),
        (
            "trainer.gradient_clip_val",
            math.nan,
            "trainer.gradient_clip_val must be finite, not nan",
        ),
        (
            "trainer.accumulate_grad_batches",
            1.5,
            "trainer.accumulate_grad_batches must be a whole number of at least 1, not 1.5",
        ),
        (
            "trainer.accumulate_grad_batches",
            0,
            "trainer.accumulate_grad_batches must be a whole number of at least 1, not 0",
        ),
        ("augment.scale", [1e-30, 1.0], "augment.scale must be 0.01 to 100, not [1e-30, 1.0]"),
        (
            "augment.scale",
            [1.0, 0.5],
            "augment.scale must be [low, high] with low <= high, not [1.0, 0.5]",
        ),
        ("logger.offset", -math.inf, "logger.offset must be finite, not -inf"),
        (
            "callbacks.stop",
            {"_target_": "x.Y", "marks": [1, math.nan]},
            "callbacks.stop.marks must be finite, not [1, nan]",
        ),
        (
            "model.stages[1].depth",
            0,
            "model.stages.depth must be at least 1, not 0",
        ),
        (
            "model.mlp_ratio",
            0.01,
            "model.mlp_ratio must be at least 1/96, so that every MLP has a hidden width, not 0.01",
        ),
    ],
)
def test_what_is_said(composed, name, value, said):
    """The answer names the setting as it is typed, the rule that is broken, and the value."""
    changed = composed.copy()
    OmegaConf.update(changed, name, value, force_add=True)
    with pytest.raises(SettingError) as refused:
        check(changed)
    assert str(refused.value) == said
