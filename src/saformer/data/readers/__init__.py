"""Readers: one file a dataset or format; bytes in, arrays out.

The reader of a dataset is the module here that bears its name, or one that `dataset.reader` names,
with a function `read(config, timesteps) -> Source`; a `DataError` says what is missing and how to
get it.
"""

import inspect
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from saformer.data.settings import DatasetConfig, Resize, Split
from saformer.data.source import Source
from saformer.errors import SettingError, require
from saformer.plugins import locate
from saformer.suggest import suggest


def find(config: DatasetConfig) -> ModuleType:
    """The reader of a dataset.

    Raises:
        SettingError: There is none of that name.
    """
    ours = [module.name for module in iter_modules(__path__)]
    name = config.reader or config.name
    expected = "a module with a function read(config, timesteps)"
    if config.reader is None:
        if name in ours and _reads(found := _module(name)):
            return found
        # Some of our modules are parts that several readers share.
        near = suggest(name, (each for each in ours if _reads(_module(each))))
        fix = "A module of your own is named by dataset.reader"
        raise SettingError(f"dataset.name has no reader '{name}'.{near} {fix}")
    dotted = f"{__name__}.{name}" if name in ours else name
    reader: ModuleType = locate("dataset.reader", dotted, _reads, expected)
    return reader


def _module(name: str) -> ModuleType:
    return import_module(f"{__name__}.{name}")


def _reads(found: Any) -> bool:
    """Whether it is a module with a function of two arguments, `read`."""
    function = getattr(found, "read", None)
    if not isinstance(found, ModuleType) or not inspect.isfunction(function):
        return False
    try:
        inspect.signature(function).bind("config", "timesteps")
    except TypeError:
        return False
    return True


def read(config: DatasetConfig, timesteps: int) -> Source:
    """Read a dataset with its reader, and hold what was read against the settings.

    Args:
        config: Settings of the dataset.
        timesteps: Frames T of a recording of events; images are the same for every T.

    Raises:
        SettingError: There is no reader of that name, or its data has another shape than `config`.
        DataError: The files are missing or damaged.
    """
    if config.events is None:
        rule = f"be official for {config.name}, whose test set was published"
        require(config.split is Split.official, "dataset.split", rule, config.split)
    source: Source = find(config).read(config, timesteps)
    if config.events is not None:
        rule = f"be null for {config.name}, which is images"
        require(len(source.x.shape) == 5, "dataset.events", rule, "set")
    else:
        rule = f"be set for {config.name}, which is frames of events"
        require(len(source.x.shape) == 4, "dataset.events", rule, "null")
    if isinstance(source.x, Tensor):
        ok, expected = source.x.dtype is torch.uint8, "name a reader that gives uint8"
        require(ok or config.events is not None, "dataset.reader", expected, source.x.dtype)
    channels, side = source.x.shape[-3], source.x.shape[-1]
    if config.events is not None and config.events.resize is Resize.bilinear:
        side = config.image_size  # the device resizes
    for name, value, found in (
        ("in_channels", config.in_channels, channels),
        ("image_size", config.image_size, side),
    ):
        require(value == found, f"dataset.{name}", f"be {found} for {config.name}", value)
    classes = 1 + int(source.y.max())
    rule = f"be at least {classes} for {config.name}"
    require(config.num_classes >= classes, "dataset.num_classes", rule, config.num_classes)
    return source
