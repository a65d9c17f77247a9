"""Decide from their settings whether two runs are the same experiment.

All settings count except those of places and speed, which change results only by rounding. So the
training settings decide to which row of a table a run belongs; its folder, command and machine do
not matter.
"""

from functools import cache
from typing import Any

from saformer.config.schema import defaults
from saformer.dotted import covers, leaves

FREE = (
    # Names, and places of files. The seed is compared separately.
    *("name", "model.name", "seed", "ckpt_path", "data_dir", "dataset.root", "dataset.cache_dir"),
    # What input a preset is for; the network is built for that of the dataset.
    *("model.in_channels", "model.image_size"),
    # Speed.
    *("compile", "memory", "neuron.backend", "dataset.eval_batch_size", "dataset.num_workers"),
    *("dataset.device_resident", "trainer.accelerator", "trainer.strategy"),
    *("trainer.deterministic", "trainer.inference_mode", "trainer.num_sanity_val_steps"),
    # The images of an optimizer step are compared as the product of these: effective_batch.
    *("trainer.devices", "trainer.num_nodes", "trainer.accumulate_grad_batches"),
    # What is shown, drawn and counted besides the training.
    *("logger", "objective", "energy", "plots", "trainer.log_every_n_steps"),
    *("trainer.enable_progress_bar", "trainer.enable_model_summary"),
)
"""Settings in which the runs of a row may differ; a group stands for all settings in it."""

SAME = ("trainer.precision", "energy.convention")
"""Settings that a row may leave open, but that must be equal for all runs of the row."""


def defining(config: dict[str, Any], effective_batch: int | None = None) -> dict[str, Any]:
    """The settings that define an experiment, and those of `SAME`.

    Args:
        config: All settings as plain values.
        effective_batch: Images of an optimizer step; None computes it from the settings.
    """
    all_settings = _defaults() | leaves(config)
    # Drop the default of a whole group, such as `dataset.events: null`, if the group has settings.
    groups = {name.rpartition(".")[0] for name in all_settings}
    defined = {
        name: _without_place(value)
        for name, value in all_settings.items()
        if name not in groups and (name in SAME or not covers(FREE, name))
    }
    if defined.get("trainer.max_epochs") == defined.get("epochs"):  # it is ${epochs}, so the same
        defined.pop("trainer.max_epochs", None)
    return defined | {"effective_batch": effective_batch or _effective_batch(all_settings)}


def wanted(config: dict[str, Any], words: list[str]) -> dict[str, Any]:
    """The settings that a run of a row must have.

    Args:
        config: Configuration of the row as plain values.
        words: Overrides of the row; a setting of `SAME` is required only if they set it.
    """
    typed = [word.lstrip("+~").partition("=")[0] for word in words]
    settings = defining(config)
    left_open = [name for name in SAME if not covers(typed, name)]
    return {name: value for name, value in settings.items() if name not in left_open}


def differences(asked: dict[str, Any], found: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings in which a run differs from the required ones, as (required, found).

    A value is None if the setting is missing. An effective batch can be unknown, because devices
    are counted when a run starts; an unknown one counts as equal to any.
    """
    unlike = {}
    for name in {**asked, **found}:
        required, actual = asked.get(name), found.get(name)
        left_open = name in SAME and name not in asked
        unknown = name == "effective_batch" and None in (required, actual)
        if required != actual and not left_open and not unknown:
            unlike[name] = (required, actual)
    return unlike


@cache  # every start of every run is compared with them
def _defaults() -> dict[str, Any]:
    """Defaults of all settings, for runs that are older than a setting and so do not have it."""
    return leaves(defaults())


def _without_place(value: Any) -> Any:
    """Shorten class paths of this package to the class name, because classes may move."""
    if isinstance(value, list):
        return [_without_place(inner) for inner in value]
    if isinstance(value, dict):
        return {key: _without_place(inner) for key, inner in value.items()}
    ours = isinstance(value, str) and value.startswith("saformer.")
    return value.rpartition(".")[2] if ours else value


def _effective_batch(settings: dict[str, Any]) -> int | None:
    devices = settings.get("trainer.devices", 1)
    factors = [
        settings.get("dataset.batch_size"),
        len(devices) if isinstance(devices, list) else devices,
        settings.get("trainer.num_nodes", 1),
        settings.get("trainer.accumulate_grad_batches", 1),
    ]
    product = 1
    for factor in factors:
        if not isinstance(factor, int) or factor < 1:
            return None
        product *= factor
    return product
