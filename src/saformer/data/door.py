"""Check what a reader returns, be it our reader or the user's; later code trusts these data.

These checks refuse data that would silently give wrong numbers, before training starts. Two items
may have the same bytes: published datasets contain such images, even across training and test set.

N items, T timesteps, C channels, H W height and width, K classes.
"""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saformer.data.image_files import ImageFiles
from saformer.data.settings import DatasetConfig, Resize
from saformer.data.source import Source
from saformer.errors import DataError, require

OURS = ("dataset", "split", "digest_of", "train", "val", "test", "epochs")
"""Keys of ours in run.json and in checkpoints; a reader's facts are stored beside them."""


def check_source(source: Any, config: DatasetConfig, timesteps: int) -> Source:
    """Check that what a reader returned is consistent and fits the settings.

    Of images as bytes, only the shape is checked, so that a dataset on the disk is not read.

    Args:
        source: What the reader returned.
        config: Settings of the dataset.
        timesteps: Frames T of a recording of events.

    Returns:
        The same source, with its facts as plain values.

    Raises:
        SettingError: The data do not fit the settings.
        DataError: The data contradict themselves.
    """
    if not isinstance(source, Source):
        raise fault(config, "a saformer.data.source.Source", kind(source), "Return one in read.")
    _check_x(source.x, config, timesteps)
    count, y = source.x.shape[0], source.y
    if not isinstance(y, Tensor) or y.dtype is not torch.int64:
        raise fault(config, "y as a tensor of int64", kind(y), "Give torch.tensor(numbers).")
    check_labels(y.numpy(), count, config)
    _check_items(source, count, config)
    check_names(source.names, count, config)
    return replace(source, facts=_plain(source.facts, config))


def check_labels(labels: NDArray[np.int64], count: int, config: DatasetConfig) -> None:
    """Check that every item has one class number, from 0 to K - 1.

    Raises:
        SettingError: There are more classes than the settings say.
        DataError: A number is below 0, or there are more or fewer numbers than items.
    """
    if labels.shape != (count,):
        expected = f"one class number for each of {count} items"
        raise fault(config, expected, f"{list(labels.shape)}", "Give y for the items of x.")
    if not count:
        raise fault(config, "items", "none", "Check dataset.root.")
    below = np.flatnonzero(labels < 0)
    if len(below):
        found = f"{labels[below[0]]} for item {below[0]} ({len(below)} are below 0)"
        fix = "Leave out items without a class."
        raise fault(config, f"class numbers 0 to {config.num_classes - 1}", found, fix)
    classes = 1 + int(labels.max())
    rule = f"be at least {classes} for {config.name}"
    require(config.num_classes >= classes, "dataset.num_classes", rule, config.num_classes)


def _check_x(x: Any, config: DatasetConfig, timesteps: int) -> None:
    """Check type, shape and finite values of the images or frames."""
    events = config.events
    if not isinstance(x, Tensor | ImageFiles):
        raise fault(config, "x as a tensor or ImageFiles", kind(x), "Give torch.from_numpy(x).")
    shape = x.shape
    if len(shape) not in (4, 5):
        fix = "Give every axis, also C = 1 for grey images."
        raise fault(config, "x [N, C, H, W] or [N, T, 2, H, W]", f"{list(shape)}", fix)
    if events is not None:
        rule = f"be null for {config.name}, which is images"
        require(len(shape) == 5, "dataset.events", rule, "set")
        if shape[1] != timesteps:
            fix = "Cut recordings into as many frames as the argument timesteps of read says."
            raise fault(config, f"{timesteps} frames (timesteps)", f"{shape[1]}", fix)
    else:
        rule = f"be set for {config.name}, which is frames of events"
        require(len(shape) == 4, "dataset.events", rule, "null")
    if isinstance(x, Tensor) and events is None:
        ok, rule = x.dtype is torch.uint8, "name a reader that gives uint8"
        require(ok, "dataset.reader", rule, x.dtype)
    channels, height, width = shape[-3:]
    rule = f"be {channels} for {config.name}"
    require(config.in_channels == channels, "dataset.in_channels", rule, config.in_channels)
    if events is None or events.resize is not Resize.bilinear:  # frames are resized on the device
        side = config.image_size
        if height != width:
            fix = "Cut or resize them to squares."
            raise fault(config, f"{side}x{side} pixels", f"{height}x{width}", fix)
        require(side == width, "dataset.image_size", f"be {width} for {config.name}", side)
    if isinstance(x, Tensor) and x.is_floating_point() and x.numel():
        _check_finite(x, config)


def _check_finite(x: Tensor, config: DatasetConfig) -> None:
    """Check that no value is NaN, or infinite in float32, the type that the network receives."""
    if not _is_finite(x):
        wrong = [item for item, values in enumerate(x) if not _is_finite(values)]
        found = f"NaN or infinite ones in {len(wrong)} of {len(x)} items, the first item {wrong[0]}"
        raise fault(config, "finite values in x", found, "Repair these items, or leave them out.")


def _is_finite(x: Tensor) -> bool:
    most = torch.finfo(torch.float32).max
    low, high = x.aminmax()  # both are NaN if a value is; unlike isfinite it allocates no memory
    return -most <= float(low) and float(high) <= most


def _check_items(source: Source, count: int, config: DatasetConfig) -> None:
    """Check that training and test items exist, and that no item is in both or is listed twice."""
    times: dict[str, NDArray[np.int64]] = {}
    for name, items in (("train", source.train), ("test", source.test)):
        ok = isinstance(items, np.ndarray) and items.dtype == np.int64 and items.ndim == 1
        if not ok:
            fix = "Give np.array(numbers, dtype=np.int64), for a mask np.flatnonzero(mask)."
            raise fault(config, f"{name} as int64 [n]", kind(items), fix)
        if not len(items):
            raise fault(config, f"items in {name}", "none", "Name those of each set.")
        strays = items[(items < 0) | (items >= count)]
        if len(strays):
            found = f"{strays[0]} ({len(strays)} are outside)"
            fix = "Give indices into x."
            raise fault(config, f"item numbers 0 to {count - 1} in {name}", found, fix)
        times[name] = np.bincount(items, minlength=count)  # no sorting, for there may be a million
        twice = np.flatnonzero(times[name] > 1)
        if len(twice):
            found = f"{twice[0]} again ({len(twice)} come more than once)"
            raise fault(config, f"every item once in {name}", found, "Name each once.")
    both = np.flatnonzero((times["train"] > 0) & (times["test"] > 0))
    if len(both):
        found = f"{len(both)} of {len(source.test)} test items in train, the first item {both[0]}"
        fix = "Leave them out of train: a test item must not be a training item."
        raise fault(config, "test items that are not trained on", found, fix)


def check_names(names: Any, count: int, config: DatasetConfig) -> None:
    """Check that the names are unique."""
    if names is None:
        return
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise fault(config, "names as a list of str, or None", kind(names), "Give str(name).")
    if len(names) != count:
        fix = "Name every item, or give None."
        raise fault(config, f"{count} names", f"{len(names)}", fix)
    if len(set(names)) == count:
        return
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    shared = {name: items for name, items in places.items() if len(items) > 1}
    name, (first, second, *_) = next(iter(shared.items()))
    found = f"items {first} and {second} both named {name!r} ({len(shared)} names are not unique)"
    fix = "List each item once, or give unique names, such as paths below the root."
    raise fault(config, "a unique name for each item", found, fix)


def _plain(facts: Any, config: DatasetConfig) -> dict[str, Any]:
    """Convert facts to plain JSON values, because a checkpoint with others could not be loaded."""
    try:
        plain = json.loads(json.dumps(facts))
    except (TypeError, ValueError) as error:
        fix = "Give numbers, text, lists and dictionaries."
        raise fault(config, "facts that JSON can hold", str(error), fix) from None
    if not isinstance(plain, dict) or set(OURS) & set(plain):
        found = f"{sorted(set(OURS) & set(plain))}" if isinstance(plain, dict) else kind(facts)
        expected = f"facts as a dictionary without {', '.join(OURS)}"
        raise fault(config, expected, found, "Give them other names.")
    return plain


def kind(value: Any) -> str:
    """Describe a value by type, and an array also by shape, for a message."""
    if isinstance(value, Tensor | np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    return type(value).__name__


def fault(config: DatasetConfig, expected: str, found: str, fix: str) -> DataError:
    """Make the error that a reader returned something wrong."""
    reader = f"dataset.reader={config.reader}" if config.reader else f"dataset={config.name}"
    return DataError(reader, expected, found, fix)
