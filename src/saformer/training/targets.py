"""Objects that a setting describes by `_target_`: a class by its dotted name, and its arguments.

An experiment file may be a stranger's: it chooses among classes of the kinds that a setting asks
for, and calls nothing else. So Hydra's own `instantiate`, which calls any name, is not used.
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
"""What an argument may be an object of; every other argument is a plain value."""
A_PART = (
    "a subclass of Lightning's Accelerator, Strategy, Profiler or a plugin of its Trainer, "
    "torch.amp.GradScaler, or datetime.timedelta"
)

Built = TypeVar("Built")


def build(setting: str, node: Any, kind: type[Built], **arguments: Any) -> Built:
    """Build the object that a setting describes.

    Args:
        setting: The setting, as it is typed.
        node: Its value: `_target_` and arguments by keyword, which may be such nodes themselves.
        kind: What it must be a subclass of.
        **arguments: Further arguments, which the setting cannot change.

    Raises:
        SettingError: The name is of nothing of that kind, or the class does not take the arguments.
    """
    is_node = isinstance(node, dict) and "_target_" in node
    require(is_node, setting, "name a class with _target_", node)
    expected = f"a subclass of Lightning's {kind.__name__}"
    built: Built = _build(setting, {**node, **arguments}, kind, expected)
    return built


def _build(
    setting: str, node: dict[str, Any], kinds: type | tuple[type, ...], expected: str
) -> Any:
    found = _class(f"{setting}._target_", node["_target_"], kinds, expected)
    arguments = {}
    for name, value in node.items():
        if name == "_target_":
            continue
        if str(name).startswith("_"):
            raise SettingError(
                f"{setting}.{name} must be left out: of such keys _target_ alone is read"
            )
        arguments[name] = _argument(f"{setting}.{name}", value)
    return _call(found, arguments)


def _argument(setting: str, value: Any) -> Any:
    """A plain value, or with an object in the place of each node."""
    if isinstance(value, list):
        return [_argument(f"{setting}[{i}]", one) for i, one in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if "_target_" in value:
        return _build(setting, value, PARTS, A_PART)
    return {name: _argument(f"{setting}.{name}", one) for name, one in value.items()}


def _class(setting: str, dotted: Any, kinds: type | tuple[type, ...], expected: str) -> type:
    dotted = str(dotted)
    # A few modules of Python's own start something when they are imported.
    of_python = dotted.partition(".")[0] in sys.stdlib_module_names
    ok = not of_python or dotted == "datetime.timedelta"
    require(ok, setting, f"be {expected}", dotted)
    found: type = locate(
        setting, dotted, lambda one: isinstance(one, type) and issubclass(one, kinds), expected
    )
    return found


def _call(found: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    name = found.__name__
    try:
        with suppress(ValueError):  # a class in C has no signature
            signature(found).bind(**arguments)  # before there is half an object
        return found(**arguments)
    except Exception as error:  # a class may raise anything
        reason = " ".join(str(error).split())
        if match := re.search(r"unexpected keyword argument '(\w+)'", reason):
            raise SettingError(f"{name} has no argument '{match[1]}'") from error
        fix = (
            " Type trainer=auto to use what this machine has." if "backend found" in reason else ""
        )
        raise SettingError(f"{name}: {reason}{fix}") from error
