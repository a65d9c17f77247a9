"""The door behind which data are believed: what every reader gives, shipped or a user's own.

Whatever would make a wrong number without a word is refused here, before anything is trained. Two
items may well have the same bytes: published sets hold such images, in training and test set too.

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
"""Words beside which a reader's facts stand, in run.json and in checkpoints."""


def check_source(source: Any, config: DatasetConfig, timesteps: int) -> Source:
    """Hold what a reader gave against itself and against the settings.

    Of images as bytes the sizes alone are looked at, so that nothing is read of a set on a disk.

    Args:
        source: What it gave.
        config: Settings of the dataset.
        timesteps: Frames T of a recording of events.

    Returns:
        The same, its facts as plain values.

    Raises:
        SettingError: It is other data than the settings say.
        DataError: It contradicts itself.
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
    """Class numbers are one for each item, and 0 to K - 1.

    Raises:
        SettingError: There are more classes than the settings say.
        DataError: A number is below 0, or there is one too many or too few.
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
    """Kind, shape and finite values of the images or frames."""
    events = config.events
    if not isinstance(x, Tensor | ImageFiles):
        raise fault(config, "x as a tensor or ImageFiles", kind(x), "Give torch.from_numpy(x).")
    shape = x.shape
    if len(shape) not in (4, 5):
        fix = "Give every axis, C = 1 of grey images too."
        raise fault(config, "x [N, C, H, W] or [N, T, 2, H, W]", f"{list(shape)}", fix)
    if events is not None:
        rule = f"be null for {config.name}, which is images"
        require(len(shape) == 5, "dataset.events", rule, "set")
        if shape[1] != timesteps:
            fix = "Cut recordings into as many frames as read is asked for."
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
    if events is None or events.resize is not Resize.bilinear:  # else the device resizes
        side = config.image_size
        if height != width:
            fix = "Cut or resize them to squares."
            raise fault(config, f"{side}x{side} pixels", f"{height}x{width}", fix)
        require(side == width, "dataset.image_size", f"be {width} for {config.name}", side)
    if isinstance(x, Tensor) and x.is_floating_point() and x.numel():
        _check_finite(x, config)


def _check_finite(x: Tensor, config: DatasetConfig) -> None:
    """No value is NaN, or infinite as float32, in which a network is given it."""
    if not _is_finite(x):
        wrong = [item for item, each in enumerate(x) if not _is_finite(each)]
        found = f"NaN or infinite ones in {len(wrong)} of {len(x)} items, the first item {wrong[0]}"
        raise fault(config, "finite values in x", found, "Repair these items, or leave them out.")


def _is_finite(x: Tensor) -> bool:
    most = torch.finfo(torch.float32).max
    low, high = x.aminmax()  # both NaN if one value is; needs no memory, as isfinite does
    return -most <= float(low) and float(high) <= most


def _check_items(source: Source, count: int, config: DatasetConfig) -> None:
    """Training and test items are some of all, and no item is both or comes twice."""
    times: dict[str, NDArray[np.int64]] = {}
    for name, items in (("train", source.train), ("test", source.test)):
        ok = isinstance(items, np.ndarray) and items.dtype == np.int64 and items.ndim == 1
        if not ok:
            fix = "Give np.array(numbers, dtype=np.int64), of a mask np.flatnonzero(mask)."
            raise fault(config, f"{name} as int64 [n]", kind(items), fix)
        if not len(items):
            raise fault(config, f"items in {name}", "none", "Name those of each set.")
        strays = items[(items < 0) | (items >= count)]
        if len(strays):
            found = f"{strays[0]} ({len(strays)} are outside)"
            fix = "Give places in x."
            raise fault(config, f"item numbers 0 to {count - 1} in {name}", found, fix)
        times[name] = np.bincount(items, minlength=count)  # a million items without sorting
        twice = np.flatnonzero(times[name] > 1)
        if len(twice):
            found = f"{twice[0]} again ({len(twice)} come more than once)"
            raise fault(config, f"every item once in {name}", found, "Name each once.")
    both = np.flatnonzero((times["train"] > 0) & (times["test"] > 0))
    if len(both):
        found = f"{len(both)} of {len(source.test)} test items in train, the first item {both[0]}"
        fix = "Leave them out of train: nothing is tested on what it was trained on."
        raise fault(config, "test items that are not trained on", found, fix)


def check_names(names: Any, count: int, config: DatasetConfig) -> None:
    """Names tell items apart."""
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
    shared = {name: found for name, found in places.items() if len(found) > 1}
    name, (one, other, *_) = next(iter(shared.items()))
    found = f"items {one} and {other} both named {name!r} ({len(shared)} names stand for several)"
    fix = "List each item once, or give names that tell them apart, as paths below the root."
    raise fault(config, "a name of its own for each item", found, fix)


def _plain(facts: Any, config: DatasetConfig) -> dict[str, Any]:
    """Facts as JSON has them: a checkpoint that holds anything else could not be read again."""
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
    """What something is, in a few words."""
    if isinstance(value, Tensor | np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    return type(value).__name__


def fault(config: DatasetConfig, expected: str, found: str, fix: str) -> DataError:
    """What a reader gave that it may not give."""
    reader = f"dataset.reader={config.reader}" if config.reader else f"dataset={config.name}"
    return DataError(reader, expected, found, fix)
