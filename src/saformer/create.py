"""Create networks by the name of a preset, with settings as on the command line."""

from dataclasses import fields
from fnmatch import fnmatchcase
from typing import Any

from saformer.config.check import check, setting_names
from saformer.config.files import options
from saformer.config.overrides import compose
from saformer.config.schema import Config
from saformer.errors import SettingError
from saformer.escape import override
from saformer.models.settings import ModelConfig
from saformer.models.transformer import SAFormer
from saformer.suggest import suggest

GROUPS = ("attention", "neuron", "ablation")
"""Groups of conf/ that shape a network."""


def list_models(pattern: str = "*") -> list[str]:
    """Names that `create_model` knows, in alphabetical order: the package's and your own.

    Args:
        pattern: Only names that match it, for example `saformer_*` or `*events`.
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
) -> SAFormer:
    """Create a network, from images [B, C, H, W] or frames [B, T, C, H, W] to logits [T, B, K].

    Its weights are random.

        >>> create_model("saformer_4_384", depth=2, attention="ssa", **{"model.dwc.place": "none"})

    Args:
        name: A preset that `list_models` names.
        num_classes: Classes K.
        timesteps: Timesteps T.
        in_channels: Channels C of the input; by default those of the preset.
        image_size: Side of the input in pixels; by default that of the preset.
        overrides: Options and settings as on the command line: a group (`attention="ssa"`,
            `neuron="plif"`, `ablation="no_dwc"`), a setting of the model (`depth=2`), or any dotted
            name (`**{"neuron.tau": 1.5}`).

    Raises:
        SettingError: A name is unknown, or a value is out of range.
    """
    presets = list_models()
    if name not in presets:
        hint = suggest(name, presets) or " saformer.list_models() lists all."
        raise SettingError(f"there is no model '{name}'.{hint}")
    changes = [_override(key, value) for key, value in overrides.items()]
    base = ["dataset=cifar10", "augment=none", f"model={name}", f"timesteps={timesteps}"]
    config = compose([*base, *changes])
    preset = config.model
    config.dataset.update(
        num_classes=num_classes,
        in_channels=preset.in_channels if in_channels is None else in_channels,
        image_size=preset.image_size if image_size is None else image_size,
        mean=[0.0],  # create_model does not normalise its input
        std=[1.0],
    )
    return build_backbone(check(config))


def build_backbone(config: Config) -> SAFormer:
    """Build the network of a configuration."""
    return SAFormer(
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
    """Write a keyword argument as a user types it on the command line."""
    of_model = [setting.name for setting in fields(ModelConfig) if setting.name != "name"]
    if key.startswith("dataset."):
        fix = "for the input, pass num_classes, in_channels or image_size"
        raise SettingError(f"create_model uses no data, so it has no setting '{key}': {fix}")
    if key in of_model:
        key = f"model.{key}"
    elif key not in GROUPS and "." not in key:
        hint = suggest(key, [*of_model, *GROUPS, *setting_names()])
        raise SettingError(f"create_model has no setting '{key}'.{hint}")
    return f"{key}={override(value)}"
