"""What the user typed: overrides composed or laid on a restored configuration, and complaints of
Hydra's in plain words.
"""

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from saformer.config import (
    OF_MACHINE,
    VERSION_BASE,
    conf_dir,
    literal,
    options,
    setting_names,
    unknown_setting,
)
from saformer.errors import SettingError
from saformer.suggest import suggest

# Options of Hydra's own groups that a plugin brings.
PLUGINS = {
    "submitit_slurm": "'saformer[slurm]'",
    "submitit_local": "'saformer[slurm]'",
    "joblib": "hydra-joblib-launcher",
    "optuna": "'saformer[sweep]'",
}
NO_OPTION = "Config group override must be"
OF_TRAINING = {
    *("augment", "callbacks", "compile", "debug", "epochs", "logger", "loss", "memory", "name"),
    *("objective", "optimizer", "scheduler"),
}
IMPORTED = ("dataset.reader", "attention.branch", "neuron.layer", "energy.costs")
"""Settings that name modules and classes (docs/extend.md)."""
PRECISION = r"(16|32|64|bf16)(-mixed|-true)?"
FREE_NODES = {
    "trainer": "an argument of lightning.pytorch.Trainer",
    "callbacks": "a callback",
    "logger": "a setting of the logger",
    "attention.options": "an argument of attention.branch",
    "neuron.options": "an argument of neuron.layer",
}


def compose(words: list[str], name: str = "train") -> DictConfig:
    """What the command line makes of overrides, for a program that is not Hydra's.

    Args:
        words: The overrides.
        name: The file of conf/ to begin with: train or eval.

    Raises:
        SettingError: They make no sense.
    """
    around, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None  # of a command's own
    try:
        with hydra.initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
            return hydra.compose(name, words)
    except Exception as error:
        if is_complaint(error):
            raise SettingError(explain(error)) from None
        raise
    finally:
        GlobalHydra.instance().hydra = around


def at_home(word: str) -> str:
    """A word of a command line whose value begins with `~`, as a shell has it at a word's start."""
    match = re.fullmatch(r"""([^=~]+=["']?)(~.*)""", word, re.DOTALL)
    return match[1] + os.path.expanduser(match[2]) if match else word


def is_complaint(error: BaseException) -> bool:
    """Whether Hydra or OmegaConf raised it about the command line."""
    # What a group cannot be is said with a bare ValueError.
    of_a_group = isinstance(error, ValueError) and str(error).startswith(NO_OPTION)
    return isinstance(error, HydraException | OmegaConfBaseException) or of_a_group


def explain(error: BaseException) -> str:
    """One line for what Hydra or OmegaConf raised about the command line."""
    text = str(error)
    if text.startswith(NO_OPTION):
        return "a group takes the name of an option, as in logger=none, not null and no number"
    if isinstance(error, OverrideParseException):
        typed = error.override
        if "=" not in typed and typed.endswith(".ckpt"):
            return f"'{typed}' is not an override: type ckpt_path={typed}"
        if "missing EQUAL" in text:
            return f"'{typed}' is not an override: type {typed}=VALUE, or quote a value with spaces"
        key, _, value = typed.partition("=")
        return f"cannot read {typed}: quote the value, '{key}=\"{value}\"'"
    if match := re.match(r"Ambiguous value for argument '([^']*)'", text):
        return f"{match[1]} is several values: add -m to run them one after the other"
    if match := re.match(r"Could not override '([^']*)'", text):
        return _not_there(match[1])
    if match := re.match(r"Could not delete from config. '([^']*)'", text):
        return unknown_setting(match[1])
    if match := re.match(r"(\S+) appears more than once in the final defaults list", text):
        return f"{match[1]} is chosen already: type {match[1]}=OPTION without the +"
    if match := re.search(r"Could not find '(.*)/([^/']*)'", text):
        return _no_option(match[1], match[2], text)
    ours = re.match(
        r"SettingError raised while resolving interpolation: (.*?)\n +full_", text, re.S
    )
    if ours:
        return ours[1]
    return " ".join(text.split())


def _not_there(name: str) -> str:
    """A setting that Hydra did not find."""
    fix = f"{name} is not set here: type +{name}=VALUE"
    for node, what in FREE_NODES.items():
        if name.startswith(f"{node}."):
            return f"{fix} to add {what}"
    # What a file of one's own left at its default is not there for Hydra.
    return fix if name in setting_names() else unknown_setting(name)


def _no_option(group: str, option: str, text: str) -> str:
    """A group without the option that was typed."""
    options = re.findall(r"^\t(\S+)$", text.partition("Config search path")[0], re.MULTILINE)
    listed = f" Options: {', '.join(options)}" if options else ""
    if option in PLUGINS:
        listed += f". It comes with: pip install {PLUGINS[option]}"
    return f"{group} has no option '{option}'.{suggest(option, options)}{listed}"


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
    kept |= {"callbacks": {}, "logger": {}}  # which nothing here builds
    kept["dataset"] = saved["dataset"] | _data_here(saved["dataset"], composed)
    restored = OmegaConf.create(kept)
    known = setting_names()
    for name, node in composed.items():
        # Of this machine, or a setting younger than the checkpoint; a conf/ here may be another
        # program's.
        if name not in restored and name in known:
            restored[name] = literal(node)
    restored.neuron.backend = composed.neuron.backend
    precision = str(saved["trainer"].get("precision"))
    if re.fullmatch(PRECISION, precision):  # of what was trained
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
    readers = Path(__file__).parent / "data" / "readers"
    return setting == "dataset.reader" and name in {path.stem for path in readers.glob("[a-z]*.py")}
