"""Networks by the name of their preset, in the words of the command line."""

from dataclasses import fields
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any

from saformer import escape
from saformer.config.check import check, setting_names
from saformer.config.files import options
from saformer.config.overrides import compose
from saformer.config.schema import Config
from saformer.errors import SettingError
from saformer.models.settings import ModelConfig
from saformer.models.transformer import SpikingTransformer
from saformer.suggest import suggest

GROUPS = ("attention", "neuron", "ablation")
"""Groups of conf/ that shape a network."""


def list_models(pattern: str = "*") -> list[str]:
    """Names that `create_model` knows, in alphabetical order: the package's and your own.

    Args:
        pattern: Only names of this form, as `saformer_*` or `*events`.
    """
    return [name for name in options("model") if fnmatchcase(name, pattern)]


def create_model(
    name: str,
    *,
    num_classes: int = 10,
    timesteps: int = 4,
    in_channels: int | None = None,
    image_size: int | None = None,
    **overrides: Any,
) -> SpikingTransformer:
    """A network with random weights: images [B, C, H, W] or frames [B, T, C, H, W] to [T, B, K].

        >>> create_model("saformer_4_384", depth=2, attention="ssa", **{"model.dwc.place": "none"})

    Args:
        name: A preset, as `list_models` has them.
        num_classes: Classes K.
        timesteps: Timesteps T.
        in_channels: Channels C of the input; by default those the preset is for: 2 of event frames,
            1 of saformer_tiny, else 3.
        image_size: Side of the input in pixels; by default what the preset is for: 128 of event
            frames, 8 of saformer_tiny, else 32, and 224 with model.patch_size=16.
        overrides: Options and settings as on the command line: a group (`attention="ssa"`,
            `neuron="plif"`, `ablation="no_dwc"`), a setting of the model (`depth=2`), or any dotted
            name (`**{"neuron.tau": 1.5}`).

    Raises:
        SettingError: A name is unknown, or a value out of range.
    """
    known = list_models()
    if name not in known:
        hint = suggest(name, known) or " saformer.list_models() names all."
        raise SettingError(f"there is no model '{name}'.{hint}")
    changes = [_override(key, value) for key, value in overrides.items()]
    base = ["dataset=cifar10", "augment=none", f"model={name}", f"timesteps={timesteps}"]
    config = compose([*base, *changes])
    channels, side = _usual_input(name, config.model.patch_size)
    config.dataset.update(
        num_classes=num_classes,
        in_channels=channels if in_channels is None else in_channels,
        image_size=side if image_size is None else image_size,
        mean=[0.0],  # the network takes what it is given
        std=[1.0],
    )
    return build_backbone(check(config))


def build_backbone(config: Config) -> SpikingTransformer:
    """The network of a configuration."""
    return SpikingTransformer(
        config.model,
        config.attention,
        config.neuron,
        in_channels=config.dataset.in_channels,
        image_size=config.dataset.image_size,
        num_classes=config.dataset.num_classes,
        timesteps=config.timesteps,
        memory=config.memory,
    )


def _override(key: str, value: Any) -> str:
    """A keyword argument as it is typed on the command line."""
    of_model = [each.name for each in fields(ModelConfig) if each.name != "name"]
    if key.startswith("dataset."):
        known = "num_classes, in_channels and image_size are arguments of their own"
        raise SettingError(f"create_model has no data and knows no '{key}': {known}")
    if key in of_model:
        key = f"model.{key}"
    elif key not in GROUPS and "." not in key:
        hint = suggest(key, [*of_model, *GROUPS, *setting_names()])
        raise SettingError(f"create_model knows no '{key}'.{hint}")
    return f"{key}={_typed(value)}"


def _typed(value: Any) -> str:
    """A value as it is typed on the command line."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_typed, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{_typed(each)}' for key, each in value.items())}}}"
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, str):
        return escape.override(value)
    return "null" if value is None else str(value)


def _usual_input(name: str, patch_size: int) -> tuple[int, int]:
    """Channels and side of what a preset is for."""
    if name.endswith("_events"):
        return 2, 128
    if name == "saformer_tiny":
        return 1, 8
    return 3, 224 if patch_size == 16 else 32
