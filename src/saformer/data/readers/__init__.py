"""Readers: one file a dataset or format; bytes in, arrays out.

The reader of a dataset is the module here that bears its name, with a function `read(config,
timesteps) -> Source`; a `DataError` says what is missing and how to get it.
"""

from importlib import import_module
from types import ModuleType

from saformer.data.settings import DatasetConfig, Resize, Split
from saformer.data.source import Source
from saformer.errors import SettingError, require
from saformer.suggest import suggest

MODULES = {
    "cifar10": "cifar",
    "cifar100": "cifar",
    "cifar10_dvs": "cifar10_dvs",
    "digits": "digits",
    "digits_events": "digits_events",
    "dvs128_gesture": "dvs128_gesture",
    "fashion_mnist": "fashion_mnist",
    "imagenet": "imagenet",
    "tiny_imagenet": "tiny_imagenet",
}


def find(name: str) -> ModuleType:
    """The reader of a dataset.

    Raises:
        SettingError: There is none of that name.
    """
    if name not in MODULES:
        raise SettingError(f"dataset.name has no reader '{name}'.{suggest(name, MODULES)}")
    return import_module(f"{__name__}.{MODULES[name]}")


def read(config: DatasetConfig, timesteps: int) -> Source:
    """Read the dataset that `config.name` names.

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
    source: Source = find(config.name).read(config, timesteps)
    if config.events is not None:
        rule = f"be null for {config.name}, which is images"
        require(len(source.x.shape) == 5, "dataset.events", rule, "set")
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
