"""Networks by the name of their preset, in the words of the command line."""

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
) -> SAFormer:
    """A network with random weights: images [B, C, H, W] or frames [B, T, C, H, W] to [T, B, K].

        >>> create_model("saformer_4_384", depth=2, attention="ssa", **{"model.dwc.place": "none"})

    Args:
        name: A preset, as `list_models` has them.
        num_classes: Classes K.
        timesteps: Timesteps T.
        in_channels: Channels C of the input; by default those that the preset is for.
        image_size: Side of the input in pixels; by default the one that the preset is for.
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
    usual = config.model
    config.dataset.update(
        num_classes=num_classes,
        in_channels=usual.in_channels if in_channels is None else in_channels,
        image_size=usual.image_size if image_size is None else image_size,
        mean=[0.0],  # create_model does not normalise its input
        std=[1.0],
    )
    return build_backbone(check(config))


def build_backbone(config: Config) -> SAFormer:
    """The network of a configuration."""
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
    return f"{key}={override(value)}"
