"""Build objects that a setting describes by `_target_`: the dotted name of a class, and arguments.

An experiment file may come from a stranger. It may only choose classes of the kind that a setting
expects, and must not call anything else. So we do not use Hydra's `instantiate`, which calls any
name.
"""

import re
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from inspect import signature
from typing import Any, TypeVar

from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.plugins import CheckpointIO, ClusterEnvironment, LayerSync, Precision
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import Strategy
from torch.amp import GradScaler

from saformer.errors import SettingError, require
from saformer.plugins import locate

PARTS = (
    *(Accelerator, CheckpointIO, ClusterEnvironment, GradScaler, LayerSync, Precision, Profiler),
    *(Strategy, timedelta),
)
"""Allowed classes of arguments; all other arguments are plain values."""
A_PART = (
    "a subclass of Lightning's Accelerator, Strategy, Profiler or a plugin of its Trainer, "
    "torch.amp.GradScaler, or datetime.timedelta"
)

Built = TypeVar("Built")


def build(setting: str, node: Any, kind: type[Built], **arguments: Any) -> Built:
    """Build the object that a setting describes.

    Args:
        setting: Name of the setting, as the user types it.
        node: Its value: `_target_` and keyword arguments, which may be such nodes themselves.
        kind: Required base class.
        **arguments: Further arguments, which the setting cannot change.

    Raises:
        SettingError: The name is not a class of this kind, or the class refuses the arguments.
    """
    is_node = isinstance(node, dict) and "_target_" in node
    require(is_node, setting, "name a class with _target_", node)
    expected = f"a subclass of Lightning's {kind.__name__}"
    built: Built = _build(setting, {**node, **arguments}, kind, expected)
    return built


def _build(
    setting: str, node: dict[str, Any], kinds: type | tuple[type, ...], expected: str
) -> Any:
    target = _class(f"{setting}._target_", node["_target_"], kinds, expected)
    arguments = {}
    for name, value in node.items():
        if name == "_target_":
            continue
        if str(name).startswith("_"):
            raise SettingError(
                f"{setting}.{name} must be left out: of such keys _target_ alone is read"
            )
        arguments[name] = _argument(f"{setting}.{name}", value)
    return _call(target, arguments)


def _argument(setting: str, value: Any) -> Any:
    """Build all nodes within an argument; plain values stay as they are."""
    if isinstance(value, list):
        return [_argument(f"{setting}[{i}]", inner) for i, inner in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if "_target_" in value:
        return _build(setting, value, PARTS, A_PART)
    return {name: _argument(f"{setting}.{name}", inner) for name, inner in value.items()}


def _class(setting: str, dotted: Any, kinds: type | tuple[type, ...], expected: str) -> type:
    dotted = str(dotted)
    # Refuse the standard library, because importing some of its modules starts a program.
    of_python = dotted.partition(".")[0] in sys.stdlib_module_names
    ok = not of_python or dotted == "datetime.timedelta"
    require(ok, setting, f"be {expected}", dotted)
    target: type = locate(
        setting, dotted, lambda obj: isinstance(obj, type) and issubclass(obj, kinds), expected
    )
    return target


def _call(target: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    name = target.__name__
    try:
        with suppress(ValueError):  # a class written in C has no signature
            signature(target).bind(**arguments)  # check arguments before the constructor runs
        return target(**arguments)
    except Exception as error:  # a class may raise any exception
        reason = " ".join(str(error).split())
        if match := re.search(r"unexpected keyword argument '(\w+)'", reason):
            raise SettingError(f"{name} has no argument '{match[1]}'") from error
        fix = (
            " Type trainer=auto to use what this machine has." if "backend found" in reason else ""
        )
        raise SettingError(f"{name}: {reason}{fix}") from error
