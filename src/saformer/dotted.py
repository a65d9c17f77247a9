"""Settings by their dotted names, as they are typed."""

from collections.abc import Iterable
from typing import Any

OF_MACHINE = (
    *("trainer", "callbacks", "logger", "ckpt_path", "data_dir", "neuron.backend"),
    *("dataset.root", "dataset.cache_dir", "dataset.num_workers", "dataset.device_resident"),
)
"""Settings of the machine that trains, or of training alone: no other follows a checkpoint's."""


def leaves(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """All settings by dotted name; lists are values, and so are empty nodes."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict) and value:
            found |= leaves(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def covers(names: Iterable[str], setting: str) -> bool:
    """Whether a setting is one of the names, or lies below one."""
    return any(setting == name or setting.startswith(name + ".") for name in names)
