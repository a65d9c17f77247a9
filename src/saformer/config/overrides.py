"""What the user typed: overrides composed by Hydra, and Hydra's complaints in plain words."""

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
    """Lets Hydra look into `own_conf_dir` behind the folder that a command names."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add the `conf/` of the current folder behind the package's."""
        read = [str(one.path).removeprefix("file://") for one in search_path.get_path()]
        own = (
            own_conf_dir() if str(conf_dir()) in read else None
        )  # another program that uses Hydra keeps its own search path
        if own is not None:
            _say_unread(own)
            search_path.append("own", f"file://{own}")


@cache  # warn once in a process
def _say_unread(own: Path) -> None:
    """Name files of one's own that have the name of one of the package's, and other content."""
    for path in sorted(own.rglob("*.yaml")):
        name = path.relative_to(own)
        ours = conf_dir() / name
        if ours.is_file() and ours.read_bytes() != path.read_bytes():
            log.warning("conf/%s is not read: the package has an option of that name", name)


Plugins.instance().register(OwnOptions)
# conf/train.yaml starts from it, so that the dataclass is the only place of a default.
ConfigStore.instance().store(name="schema", node=defaults())


def compose(words: list[str], name: str = "train") -> DictConfig:
    """What the command line makes of overrides, for a program that is not Hydra's.

    Args:
        words: The overrides.
        name: The file of conf/ to begin with: train or eval.

    Raises:
        SettingError: They make no sense.
    """
    around, GlobalHydra.instance().hydra = (
        GlobalHydra.instance().hydra,
        None,
    )  # a command around us may use its own
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
    # Hydra raises a plain ValueError if a group has an impossible value.
    of_a_group = isinstance(error, ValueError) and str(error).startswith(NO_OPTION)
    return isinstance(error, HydraException | OmegaConfBaseException) or of_a_group


def explain(error: BaseException) -> str:
    """One line for what Hydra or OmegaConf raised about the command line."""
    text = str(error)
    if text.startswith(NO_OPTION):
        return "a group takes the name of an option, as in logger=none, not null and no number"
    if isinstance(error, OverrideParseException):
        typed = error.override
        if "=" not in typed and (typed.endswith(".ckpt") or os.path.isdir(typed)):
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
    # The setting exists in the schema, but no file of conf/ has set it.
    return fix if name in setting_names() else unknown_setting(name)


def _no_option(group: str, option: str, text: str) -> str:
    """A group without the option that was typed."""
    options = re.findall(r"^\t(\S+)$", text.partition("Config search path")[0], re.MULTILINE)
    listed = f" Options: {', '.join(options)}" if options else ""
    if option in PLUGINS:
        listed += f". It comes with: pip install {PLUGINS[option]}"
    return f"{group} has no option '{option}'.{suggest(option, options)}{listed}"


def let_help_be_lazy() -> None:
    """Let argparse take a help that is no text until it is printed, as Hydra 1.3 gives one.

    From Python 3.14 on argparse reads the help of an option when the option is added, and refuses
    that of `--shell-completion`: github.com/facebookresearch/hydra/issues/3121.
    """
    check_help = getattr(argparse._ActionsContainer, "_check_help", None)
    if check_help is None:
        return

    def check_text(parser: argparse.ArgumentParser, action: argparse.Action) -> None:
        if isinstance(action.help, str):
            check_help(parser, action)

    setattr(argparse.ArgumentParser, "_check_help", check_text)  # noqa: B010  # mypy does not know the private name
