"""Attention of a block: SASA, the rivals' and the controls, under one interface.

A branch maps [T, B, D, H, W] to [T, B, D, H, W] and leaves the residual to the block. With the
membrane residual it starts with a neuron, with the SEW residual it ends with one.
"""

from dataclasses import replace
from inspect import isabstract
from typing import Any

from torch import nn

from saformer.errors import require
from saformer.models.attention.branch import AttentionBranch
from saformer.models.attention.controls import dwconv, pooling
from saformer.models.attention.sasa import SASA
from saformer.models.attention.sdsa import SDSA
from saformer.models.attention.settings import (
    Aggregate,
    AttentionConfig,
    AttentionName,
    WeightSource,
)
from saformer.models.attention.spec import BlockSpec
from saformer.models.attention.ssa import SSA
from saformer.models.settings import DWCPlace
from saformer.plugins import locate, require_options


def build_attention(spec: BlockSpec) -> nn.Module | None:
    """The branch that `spec.attention.name` names; `identity` is none at all.

    Raises:
        SettingError: The DWC is beside or behind an attention that has no projection, or a branch
            of your own cannot be built.
    """
    name = spec.attention.name
    if name is AttentionName.sdsa:
        return SDSA(spec)
    if name in (AttentionName.ssa, AttentionName.random):
        return SSA(spec)
    if name in (AttentionName.sasa, AttentionName.qkta, AttentionName.qkca):
        return SASA(replace(spec, attention=_as_sasa(spec.attention)))
    if name is AttentionName.custom:
        return _custom(spec)
    _require_no_dwc(spec, f"attention.name={name.value}")
    if name is AttentionName.identity:
        return None
    return (pooling if name is AttentionName.pooling else dwconv)(spec)


def _as_sasa(config: AttentionConfig) -> AttentionConfig:
    """QKFormer's token and channel attention are readings of SASA: q makes the mask, k is gated."""
    if config.name is AttentionName.sasa:
        return config
    by_token = config.name is AttentionName.qkta
    axis = Aggregate.channels if by_token else Aggregate.tokens
    return replace(config, name=AttentionName.sasa, weights=WeightSource.q, aggregate=axis)


def _custom(spec: BlockSpec) -> nn.Module:
    """The class of the user's own that `attention.branch` names."""

    def fits(found: Any) -> bool:
        return isinstance(found, type) and issubclass(found, nn.Module) and not isabstract(found)

    name = str(spec.attention.branch)
    expected = "a subclass of AttentionBranch (with build and attend) or of nn.Module"
    found = locate("attention.branch", name, fits, expected)
    ours = issubclass(found, AttentionBranch)
    if not ours:
        _require_no_dwc(spec, f"attention.branch={name}, which is no AttentionBranch")
    method = "build" if ours else "__init__"
    options = spec.attention.options
    require_options("attention.options", found, method, {"spec": spec}, options)
    built: nn.Module = found(spec=spec, **options)
    return built


def _require_no_dwc(spec: BlockSpec, why: str) -> None:
    """Refuse a DWC beside or behind the projection of an attention that has none."""
    place = spec.model.dwc.place
    ok = place in (DWCPlace.none, DWCPlace.mlp)
    require(ok, "model.dwc.place", f"be none or mlp with {why}", place)
