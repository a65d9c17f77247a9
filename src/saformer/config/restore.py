"""Restore the configuration of a checkpoint, and apply what the user typed to it."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, ListConfig, OmegaConf

from saformer.config.check import literal, setting_names
from saformer.config.files import options
from saformer.config.overrides import compose
from saformer.dotted import OF_MACHINE
from saformer.errors import SettingError

OF_TRAINING = {
    *("augment", "callbacks", "compile", "epochs", "logger", "loss", "memory", "name"),
    *("objective", "optimizer", "scheduler"),
}
IMPORTED = ("dataset.reader", "attention.branch", "neuron.layer", "energy.costs")
"""Settings that name modules and classes (docs/extend.md)."""
PRECISION = r"(16|32|64|bf16)(-mixed|-true)?"


def restore(
    saved: dict[str, Any], composed: DictConfig, overrides: list[str], trust: Collection[str] = ()
) -> DictConfig:
    """Restore the configuration of a checkpoint, and change only what was typed.

    Settings of the machine are not restored: folders, workers, devices and `trainer` are those of
    `composed`, except the precision of the trainer.

    Args:
        saved: Settings of the training run, by `saformer.checkpoint.saved_config`.
        composed: The default configuration with the overrides.
        overrides: The overrides that the user typed.
        trust: Modules and classes that may be imported, besides those in `composed`.

    Raises:
        SettingError: An override has no effect on a trained model, or the checkpoint names a module
            that the user does not name.
    """
    settings = {name: value for name, value in saved.items() if name not in OF_MACHINE}
    settings |= {"callbacks": {}, "logger": {}}  # evaluations build neither
    settings["dataset"] = saved["dataset"] | _data_here(saved["dataset"], composed)
    restored = OmegaConf.create(settings)
    schema_names = setting_names()
    for name, default in composed.items():
        # Take what belongs to this machine, and settings that did not exist yet when the
        # checkpoint was written. Skip unknown ones: a conf/ here may belong to another program.
        if name not in restored and name in schema_names:
            restored[name] = literal(default)
    restored.neuron.backend = composed.neuron.backend
    precision = str(saved["trainer"].get("precision"))
    if re.fullmatch(PRECISION, precision):  # the precision of the training
        restored.trainer.precision = saved["trainer"]["precision"]
    for override in OverridesParser.create().parse_overrides(overrides):
        key = override.key_or_group
        if key in ("experiment", "ablation"):
            raise SettingError(
                f"{key}={override.value()} cannot be chosen here: a checkpoint brings its own model"
            )
        if key.partition(".")[0] in OF_TRAINING:
            raise SettingError(f"{key} has no effect on a trained model: leave it out")
        value = literal(OmegaConf.select(composed, key))
        OmegaConf.update(restored, key, value, merge=False, force_add=True)
    _require_named(restored, composed, trust)
    return restored


def _data_here(saved: dict[str, Any], composed: DictConfig) -> dict[str, Any]:
    """Find where this machine has the data of a checkpoint, and how it loads them.

    These settings come from the option of the same name. A dataset without a folder gets none.
    """
    name, here = saved.get("name"), composed
    if name != composed.dataset.name and name in [*options("dataset")]:
        here = compose([f"dataset={name}"], "eval")
        here.data_dir = literal(composed.data_dir)
    dataset = here.dataset if name == here.dataset.name else {}
    places = ("root", "cache_dir")
    folders: dict[str, Any] = {
        place: None if saved.get(place) is None else literal(dataset.get(place)) for place in places
    }
    loading = {"num_workers": 0, "device_resident": False}
    return folders | {key: dataset.get(key, default) for key, default in loading.items()}


def _require_named(restored: DictConfig, composed: DictConfig, trust: Collection[str]) -> None:
    """Refuse to import what a checkpoint names, unless the user names it too.

    Raises:
        SettingError: Only the checkpoint names it; the message says what to type.
    """
    for setting in IMPORTED:
        value, typed = (OmegaConf.select(config, setting) for config in (restored, composed))
        names, typed_names = (
            [item] if not isinstance(item, ListConfig) else [*item] for item in (value, typed)
        )
        for name in names:
            if name is None or name in (*typed_names, *trust) or _is_shipped(setting, str(name)):
                continue
            fix = f"{setting}=[{','.join(map(str, names))}]"
            fix = fix if isinstance(value, ListConfig) else f"{setting}={name}"
            raise SettingError(
                f"the checkpoint wants to import {name} ({setting}), which could run any code: "
                f"if you trust it, type {fix} (saformer-export: --trust {name}; in Python: "
                f"saformer.load(..., trust=['{name}']))"
            )


def _is_shipped(setting: str, name: str) -> bool:
    """Whether the package has this name, so that no code of others is imported for it."""
    if setting == "energy.costs":
        return "." not in name
    readers = Path(__file__).parents[1] / "data" / "readers"
    return setting == "dataset.reader" and name in {path.stem for path in readers.glob("[a-z]*.py")}
