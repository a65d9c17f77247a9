"""Compose what the user typed with Hydra, and explain Hydra's errors in plain words."""

import argparse
import logging
import os
import re
from functools import cache
from pathlib import Path

import hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, OverrideParseException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from saformer.config.check import setting_names, unknown_setting
from saformer.config.files import conf_dir, own_conf_dir
from saformer.config.schema import defaults
from saformer.errors import SettingError
from saformer.suggest import suggest

log = logging.getLogger(__name__)

VERSION_BASE = "1.3"
# Options of Hydra's own groups, and the package that provides them.
PLUGINS = {
    "submitit_slurm": "'saformer[slurm]'",
    "submitit_local": "'saformer[slurm]'",
    "joblib": "hydra-joblib-launcher",
    "optuna": "'saformer[sweep]'",
}
NO_OPTION = "Config group override must be"
FREE_NODES = {
    "trainer": "an argument of lightning.pytorch.Trainer",
    "callbacks": "a callback",
    "logger": "a setting of the logger",
    "attention.options": "an argument of attention.branch",
    "neuron.options": "an argument of neuron.layer",
}


class OwnOptions(SearchPathPlugin):
    """Makes Hydra also search `own_conf_dir`, after the folder that a command names."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add the `conf/` of the current folder after the package's."""
        folders = [str(place.path).removeprefix("file://") for place in search_path.get_path()]
        # Another program that uses Hydra keeps its search path.
        own_folder = own_conf_dir() if str(conf_dir()) in folders else None
        if own_folder is not None:
            _say_unread(own_folder)
            search_path.append("own", f"file://{own_folder}")


@cache  # warn once in a process
def _say_unread(own_folder: Path) -> None:
    """Warn of files of the user's own that the package has too, with other content."""
    for path in sorted(own_folder.rglob("*.yaml")):
        name = path.relative_to(own_folder)
        ours = conf_dir() / name
        if ours.is_file() and ours.read_bytes() != path.read_bytes():
            log.warning("conf/%s is not read: the package has an option of that name", name)


Plugins.instance().register(OwnOptions)
# conf/train.yaml starts from these defaults, so that each default is only in its dataclass.
ConfigStore.instance().store(name="schema", node=defaults())


def compose(words: list[str], name: str = "train") -> DictConfig:
    """Compose overrides as the command line does, for a command that Hydra does not run.

    Args:
        words: The overrides.
        name: The file of conf/ to start from: train or eval.

    Raises:
        SettingError: An override is wrong.
    """
    # The command that calls us may use Hydra itself, so put its instance back afterwards.
    of_caller, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        with hydra.initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
            return hydra.compose(name, words)
    except Exception as error:
        if is_complaint(error):
            raise SettingError(explain(error)) from None
        raise
    finally:
        GlobalHydra.instance().hydra = of_caller


def at_home(word: str) -> str:
    """Expand a `~` at the start of a value, as a shell does at the start of a word."""
    match = re.fullmatch(r"""([^=~]+=["']?)(~.*)""", word, re.DOTALL)
    return match[1] + os.path.expanduser(match[2]) if match else word


def is_complaint(error: BaseException) -> bool:
    """Whether Hydra or OmegaConf raised this error because of the command line."""
    # Hydra raises a plain ValueError if a group has an impossible value.
    of_a_group = isinstance(error, ValueError) and str(error).startswith(NO_OPTION)
    return isinstance(error, HydraException | OmegaConfBaseException) or of_a_group


def explain(error: BaseException) -> str:
    """Explain in one line what Hydra or OmegaConf raised because of the command line."""
    text = str(error)
    if text.startswith(NO_OPTION):
        return "a group takes the name of an option, as in logger=none, not null and not a number"
    if isinstance(error, OverrideParseException):
        typed = error.override
        if "=" not in typed and (typed.endswith(".ckpt") or os.path.isdir(typed)):
            return f"'{typed}' is not an override: type ckpt_path={typed}"
        if "missing EQUAL" in text:
            return f"'{typed}' is not an override: type {typed}=VALUE, or quote a value with spaces"
        key, _, value = typed.partition("=")
        return f"cannot read {typed}: quote the value, '{key}=\"{value}\"'"
    if match := re.match(r"Ambiguous value for argument '([^']*)'", text):
        return f"{match[1]} has several values: add -m to run them one after the other"
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
    """Explain that Hydra did not find a setting."""
    fix = f"{name} is not set here: type +{name}=VALUE"
    for node, what in FREE_NODES.items():
        if name.startswith(f"{node}."):
            return f"{fix} to add {what}"
    # The setting exists in the schema, but no file of conf/ has set it.
    return fix if name in setting_names() else unknown_setting(name)


def _no_option(group: str, option: str, text: str) -> str:
    """Explain that a group does not have the option that was typed."""
    options = re.findall(r"^\t(\S+)$", text.partition("Config search path")[0], re.MULTILINE)
    listed = f" Options: {', '.join(options)}" if options else ""
    if option in PLUGINS:
        listed += f". It comes with: pip install {PLUGINS[option]}"
    return f"{group} has no option '{option}'.{suggest(option, options)}{listed}"


def let_help_be_lazy() -> None:
    """Let argparse accept a help that becomes text only when it is printed, as in Hydra 1.3.

    From Python 3.14 on, argparse checks the help of an option when the option is added, and refuses
    that of `--shell-completion`: github.com/facebookresearch/hydra/issues/3121.
    """
    check_help = getattr(argparse._ActionsContainer, "_check_help", None)
    if check_help is None:
        return

    def check_text(parser: argparse.ArgumentParser, action: argparse.Action) -> None:
        if isinstance(action.help, str):
            check_help(parser, action)

    # Use setattr, because mypy does not know the private name.
    setattr(argparse.ArgumentParser, "_check_help", check_text)  # noqa: B010
