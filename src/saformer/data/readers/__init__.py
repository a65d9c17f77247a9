"""Readers turn files into arrays; there is one module per dataset or file format.

The reader of a dataset is the module of this package with the dataset's name, or the module that
`dataset.reader` names. It has a function `read(config, timesteps) -> Source`, which raises a
`DataError` that says what is missing and how to get it.
"""

import inspect
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

from saformer.data.door import check_source
from saformer.data.settings import DatasetConfig, Split
from saformer.data.source import Source
from saformer.errors import SettingError, require
from saformer.plugins import locate
from saformer.suggest import suggest


def find(config: DatasetConfig) -> ModuleType:
    """Find the reader of a dataset.

    Raises:
        SettingError: There is no reader of that name.
    """
    ours = [module.name for module in iter_modules(__path__)]
    name = config.reader or config.name
    expected = "a module with a function read(config, timesteps)"
    if config.reader is None:
        if name in ours and _reads(shipped := _module(name)):
            return shipped
        # Some of our modules are no readers, but parts that several readers share.
        near = suggest(name, (module for module in ours if _reads(_module(module))))
        fix = "Name a module of your own with dataset.reader"
        raise SettingError(f"dataset.name has no reader '{name}'.{near} {fix}")
    dotted = f"{__name__}.{name}" if name in ours else name
    reader: ModuleType = locate("dataset.reader", dotted, _reads, expected)
    return reader


def _module(name: str) -> ModuleType:
    return import_module(f"{__name__}.{name}")


def _reads(module: Any) -> bool:
    """Whether an object is a module with a function `read` of two arguments."""
    function = getattr(module, "read", None)
    if not isinstance(module, ModuleType) or not inspect.isfunction(function):
        return False
    try:
        inspect.signature(function).bind("config", "timesteps")
    except TypeError:
        return False
    return True


def read(config: DatasetConfig, timesteps: int) -> Source:
    """Read a dataset with its reader, and check the result against the settings.

    Args:
        config: Settings of the dataset.
        timesteps: Frames T of a recording of events; images are the same for every T.

    Raises:
        SettingError: There is no reader of that name, or the data do not fit `config`.
        DataError: The files are missing or damaged, or the reader's result contradicts itself
            (`saformer.data.door`).
    """
    if config.events is None:
        rule = f"be official for {config.name}, whose test set was published"
        require(config.split is Split.official, "dataset.split", rule, config.split)
    return check_source(find(config).read(config, timesteps), config, timesteps)
