"""Readers: one file a format; bytes in, arrays out.

A reader takes the dataset's settings and returns an `ImageSet`, or raises a `DataError` that says
what is missing and how to get it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from saformer.data.settings import DatasetConfig
from saformer.errors import SettingError, require
from saformer.suggest import suggest


@dataclass(frozen=True)
class ImageSet:
    """A whole dataset in memory: images uint8 [N, C, H, W], class numbers int64 [N]."""

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor


def read(config: DatasetConfig) -> ImageSet:
    """Read the dataset that `config.name` names.

    Raises:
        SettingError: There is no reader of that name, or its data has another shape than `config`.
        DataError: The files are missing or damaged.
    """
    from saformer.data.readers import cifar, digits, fashion_mnist

    readers: dict[str, Callable[[DatasetConfig], ImageSet]] = {
        "cifar10": cifar.read,
        "cifar100": cifar.read,
        "digits": digits.read,
        "fashion_mnist": fashion_mnist.read,
    }
    if config.name not in readers:
        raise SettingError(
            f"dataset.name has no reader '{config.name}'.{suggest(config.name, readers)}"
        )
    data = readers[config.name](config)
    channels, side = data.train_x.shape[-3], data.train_x.shape[-1]
    for name, value, found in (
        ("in_channels", config.in_channels, channels),
        ("image_size", config.image_size, side),
    ):
        require(value == found, f"dataset.{name}", f"be {found} for {config.name}", value)
    classes = 1 + int(max(data.train_y.max(), data.test_y.max()))
    rule = f"be at least {classes} for {config.name}"
    require(config.num_classes >= classes, "dataset.num_classes", rule, config.num_classes)
    return data
