"""The only way from Hydra into the program: `check` returns a typed `Config` or raises an error.

Nothing here imports torch, so `--cfg job`, `--help` and tab completion answer at once.
"""

import os
import re
from dataclasses import asdict, is_dataclass
from enum import Enum
from typing import Any, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from saformer.config.schema import Config
from saformer.errors import SettingError
from saformer.ranges import require_finite
from saformer.suggest import suggest

PLACES = ("data_dir", "dataset.root", "dataset.cache_dir", "ckpt_path")
"""Settings that are files or folders; a `~` at their start is the home folder."""


def check(composed: DictConfig) -> Config:
    """Check a composed configuration against the schema, and return it typed.

    Raises:
        SettingError: A setting is unknown, has the wrong type, or is out of range.
    """
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Config), composed)
        for name in PLACES:
            place = OmegaConf.select(merged, name)
            if isinstance(place, str):
                OmegaConf.update(merged, name, literal(os.path.expanduser(place)))
        config = OmegaConf.to_object(merged)
    except ConfigKeyError as error:
        raise SettingError(unknown_setting(error.full_key or "")) from None
    except OverflowError:  # an integer that no float can hold
        require_finite(OmegaConf.to_container(composed))
        raise
    except OmegaConfBaseException as error:
        reason, name = str(error).splitlines()[0], error.full_key or ""
        if re.split(r"[.[]", name)[0] not in composed:  # OmegaConf does not say where a stage is
            raise SettingError(f"model.stages.{name}: {reason}") from None
        value = OmegaConf.select(composed, name, throw_on_missing=False)
        if "is not a ListConfig" in reason:
            reason = f"type a list, '{name}=[{value}]'"
        raise SettingError(f"{name}={value}: {reason}") from None
    assert isinstance(config, Config)
    return config


def literal(value: Any) -> Any:
    """Escape a value so that OmegaConf does not resolve it: a folder may be named ${...}."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


def to_dict(config: Config) -> dict[str, Any]:
    """The configuration as plain values, fit for JSON and for `weights_only` checkpoints."""
    plain = _plain(asdict(config))
    assert isinstance(plain, dict)
    return plain


def _plain(value: Any) -> Any:
    # Do not use OmegaConf: it would resolve a folder that is named ${...}.
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.name if isinstance(value, Enum) else value


def setting_names(schema: type = Config, prefix: str = "") -> list[str]:
    """Dotted names of all settings in the schema."""
    names = []
    for name, kind in get_type_hints(schema).items():
        names.append(prefix + name)
        if isinstance(kind, type) and is_dataclass(kind):
            names += setting_names(kind, f"{prefix}{name}.")
    return names


def unknown_setting(name: str) -> str:
    """The error message for a setting that does not exist, with the nearest one that does."""
    if name == "paper":
        return "paper holds tables: type saformer-table NAME"
    return f"there is no setting '{name}'.{suggest(name, setting_names())}"
