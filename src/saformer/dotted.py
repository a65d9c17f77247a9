"""Settings by their dotted names, as the user types them."""

from collections.abc import Iterable
from typing import Any

OF_MACHINE = (
    *("trainer", "callbacks", "logger", "ckpt_path", "data_dir", "neuron.backend"),
    *(
        "plots",
        "dataset.root",
        "dataset.cache_dir",
        "dataset.num_workers",
        "dataset.device_resident",
    ),
)
"""Settings that belong to a machine, or only to training or drawing; they are never taken from a
checkpoint.
"""


def leaves(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """All settings by dotted name; lists and empty groups count as values."""
    by_name: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict) and value:
            by_name |= leaves(value, f"{prefix}{name}.")
        else:
            by_name[prefix + name] = value
    return by_name


def covers(names: Iterable[str], setting: str) -> bool:
    """Whether a setting is one of the names, or belongs to a group with one of the names."""
    return any(setting == name or setting.startswith(name + ".") for name in names)
