"""Attention of a block: SASA, the rivals' attentions and controls, with one interface.

A branch maps [T, B, D, H, W] to [T, B, D, H, W]; the block adds the residual. With the membrane
residual, a branch starts with a neuron; with the SEW residual, it ends with one.
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
    """Build the branch that `spec.attention.name` names; None for `identity`.

    Raises:
        SettingError: `model.dwc.place` needs a projection, which the attention does not have, or a
            branch of your own cannot be built.
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
    """Express QKFormer's token or channel attention as SASA: q makes the mask, which gates k."""
    if config.name is AttentionName.sasa:
        return config
    by_token = config.name is AttentionName.qkta
    axis = Aggregate.channels if by_token else Aggregate.tokens
    return replace(config, name=AttentionName.sasa, weights=WeightSource.q, aggregate=axis)


def _custom(spec: BlockSpec) -> nn.Module:
    """Build the branch of the user's own class, which `attention.branch` names."""

    def fits(candidate: Any) -> bool:
        is_module = isinstance(candidate, type) and issubclass(candidate, nn.Module)
        return is_module and not isabstract(candidate)

    name = str(spec.attention.branch)
    expected = "a subclass of AttentionBranch (with build and attend) or of nn.Module"
    branch_class = locate("attention.branch", name, fits, expected)
    has_projection = issubclass(branch_class, AttentionBranch)
    if not has_projection:
        _require_no_dwc(spec, f"attention.branch={name}, which is no AttentionBranch")
    method = "build" if has_projection else "__init__"
    options = spec.attention.options
    require_options("attention.options", branch_class, method, {"spec": spec}, options)
    branch: nn.Module = branch_class(spec=spec, **options)
    return branch


def _require_no_dwc(spec: BlockSpec, why: str) -> None:
    """Refuse a place of the DWC that needs a projection, for an attention without one."""
    place = spec.model.dwc.place
    ok = place in (DWCPlace.none, DWCPlace.mlp)
    require(ok, "model.dwc.place", f"be none or mlp with {why}", place)
