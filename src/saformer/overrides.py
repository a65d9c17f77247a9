"""What the user typed: overrides composed or laid on a restored configuration, and complaints of
Hydra's in plain words.
"""

import os
import re
from pathlib import Path
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from saformer.config import (
    PLACES,
    VERSION_BASE,
    conf_dir,
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
    try:
        with hydra.initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
            return hydra.compose(name, words)
    except Exception as error:
        if is_complaint(error):
            raise SettingError(explain(error)) from None
        raise


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


def restore(saved: dict[str, Any], composed: DictConfig, overrides: list[str]) -> DictConfig:
    """The configuration in a checkpoint, changed by what was typed and nothing else.

    But for what is this machine's: the places that its conf/local names, and `trainer`, which is
    composed here and takes of the checkpoint's the precision alone.

    Args:
        saved: Settings of the training run.
        composed: The default configuration under the overrides.
        overrides: What was typed.

    Raises:
        SettingError: An override makes no sense for a model that exists already.
    """
    restored = OmegaConf.create(saved)
    # Devices are this machine's; and a file, which may be a stranger's, names no class to build.
    restored.trainer = composed.trainer.copy()
    precision = saved["trainer"].get("precision")
    if isinstance(precision, str | int):  # of what was trained
        restored.trainer.precision = precision
    for name, node in composed.items():
        if name not in restored:  # a setting younger than the checkpoint
            restored[name] = node
    typed = OverridesParser.create().parse_overrides(overrides)
    here = _places_here()
    if "data_dir" in here | {override.key_or_group for override in typed}:
        _move_data(restored.dataset, saved["data_dir"], composed.data_dir)
    for name in here:
        if OmegaConf.select(restored, name) is not None:  # a dataset that has such a place
            OmegaConf.update(restored, name, OmegaConf.select(composed, name))
    for override in typed:
        key = override.key_or_group
        if key in ("experiment", "ablation"):
            raise SettingError(
                f"{key}={override.value()} cannot be chosen here: a checkpoint brings its own model"
            )
        if key.partition(".")[0] in OF_TRAINING:
            raise SettingError(f"{key} has no effect on what is trained already: leave it out")
        value = OmegaConf.select(composed, key)
        OmegaConf.update(restored, key, value, merge=False, force_add=True)
    return restored


def _places_here() -> set[str]:
    """The places that conf/local/default.yaml names."""
    path = options("local").get("default")
    local = OmegaConf.load(path) if path else OmegaConf.create()
    return {name for name in PLACES if OmegaConf.select(local, name) is not None}


def _move_data(dataset: DictConfig, before: str, now: str) -> None:
    """Look below another `data_dir` for what lay below the one of the training."""
    for name in ("root", "cache_dir"):
        path = dataset.get(name)
        if path is not None and Path(path).is_relative_to(before):
            dataset[name] = str(Path(now) / Path(path).relative_to(before))
