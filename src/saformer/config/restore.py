"""The configuration in a checkpoint, for a command that reads one: what was typed changes it."""

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
    """The configuration in a checkpoint, changed by what was typed and nothing else.

    But for what is this machine's, whatever the checkpoint says: places, workers and devices, and
    `trainer`, which takes of the checkpoint the precision alone.

    Args:
        saved: Settings of the training run, by `saformer.checkpoint.saved_config`.
        composed: The default configuration under the overrides.
        overrides: What was typed.
        trust: Modules and classes that may be imported, beside those in `composed`.

    Raises:
        SettingError: An override makes no sense for a model that exists already, or the checkpoint
            names a module that nobody else does.
    """
    kept = {name: node for name, node in saved.items() if name not in OF_MACHINE}
    kept |= {"callbacks": {}, "logger": {}}  # evaluations build neither
    kept["dataset"] = saved["dataset"] | _data_here(saved["dataset"], composed)
    restored = OmegaConf.create(kept)
    known = setting_names()
    for name, node in composed.items():
        # Take what belongs to this machine, and settings that did not exist yet when the
        # checkpoint was written. Skip unknown ones: a conf/ here may belong to another program.
        if name not in restored and name in known:
            restored[name] = literal(node)
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
            raise SettingError(f"{key} has no effect on what is trained already: leave it out")
        value = literal(OmegaConf.select(composed, key))
        OmegaConf.update(restored, key, value, merge=False, force_add=True)
    _require_named(restored, composed, trust)
    return restored


def _data_here(saved: dict[str, Any], composed: DictConfig) -> dict[str, Any]:
    """Where this machine has the data of a checkpoint, and how it loads them.

    They are those of its option of that name. A dataset that has no place gets none.
    """
    name, here = saved.get("name"), composed
    if name != composed.dataset.name and name in [*options("dataset")]:
        here = compose([f"dataset={name}"], "eval")
        here.data_dir = literal(composed.data_dir)
    known = here.dataset if name == here.dataset.name else {}
    places = ("root", "cache_dir")
    found: dict[str, Any] = {
        place: None if saved.get(place) is None else literal(known.get(place)) for place in places
    }
    loading = {"num_workers": 0, "device_resident": False}
    return found | {setting: known.get(setting, usual) for setting, usual in loading.items()}


def _require_named(restored: DictConfig, composed: DictConfig, trust: Collection[str]) -> None:
    """Refuse to import what a checkpoint names, unless its user does too.

    Raises:
        SettingError: It names something more; the message says what to type.
    """
    for setting in IMPORTED:
        value, own = (OmegaConf.select(node, setting) for node in (restored, composed))
        listed, known = (
            [one] if not isinstance(one, ListConfig) else [*one] for one in (value, own)
        )
        for name in listed:
            if name is None or name in (*known, *trust) or _is_shipped(setting, str(name)):
                continue
            typed = f"{setting}=[{','.join(map(str, listed))}]"
            typed = typed if isinstance(value, ListConfig) else f"{setting}={name}"
            raise SettingError(
                f"the checkpoint wants to import {name} ({setting}), which may run anything in it: "
                f"if it is yours, type {typed} (saformer-export: --trust {name}; in Python: "
                f"saformer.load(..., trust=['{name}']))"
            )


def _is_shipped(setting: str, name: str) -> bool:
    """Whether a name is one of the package's, for which nothing of anybody's is imported."""
    if setting == "energy.costs":
        return "." not in name
    readers = Path(__file__).parents[1] / "data" / "readers"
    return setting == "dataset.reader" and name in {path.stem for path in readers.glob("[a-z]*.py")}
