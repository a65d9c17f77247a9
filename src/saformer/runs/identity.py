"""Which settings make two runs the same experiment.

Every setting counts, but for those of place and speed, which change no result beyond rounding. So a
run belongs to a row by what it was trained with, whatever its folder, its command or its machine.
"""

from typing import Any

from saformer.config.schema import defaults
from saformer.dotted import covers, leaves

FREE = (
    # Names, and places of files. A row is found by its seed apart from the rest.
    *("name", "model.name", "seed", "ckpt_path", "data_dir", "dataset.root", "dataset.cache_dir"),
    # How fast it goes.
    *("compile", "memory", "neuron.backend", "dataset.eval_batch_size", "dataset.num_workers"),
    *("dataset.device_resident", "trainer.accelerator", "trainer.strategy"),
    *("trainer.deterministic", "trainer.inference_mode", "trainer.num_sanity_val_steps"),
    # What an optimizer step adds up; the product of these is compared instead: effective_batch.
    *("trainer.devices", "trainer.num_nodes", "trainer.accumulate_grad_batches"),
    # What is shown and counted beside the training.
    *("logger", "objective", "energy", "trainer.log_every_n_steps"),
    *("trainer.enable_progress_bar", "trainer.enable_model_summary"),
)
"""Settings, alone or with all below them, in which the runs of a row may differ."""

SAME = ("trainer.precision", "energy.convention")
"""Free to choose for a row, but numbers of one row never mix two of them."""


def defining(config: dict[str, Any], effective_batch: int | None = None) -> dict[str, Any]:
    """The settings that make a run what it is, and those of `SAME`.

    Args:
        config: All settings as plain values.
        effective_batch: Images of an optimizer step, if it is known; computed otherwise.
    """
    every = leaves(defaults()) | leaves(config)
    # A default of a whole node, `dataset.events: null`, says nothing where the node is there.
    nodes = {name.rpartition(".")[0] for name in every}
    kept = {
        name: _without_place(value)
        for name, value in every.items()
        if name not in nodes and (name in SAME or not covers(FREE, name))
    }
    if kept.get("trainer.max_epochs") == kept.get("epochs"):  # ${epochs}: one setting, not two
        kept.pop("trainer.max_epochs", None)
    return kept | {"effective_batch": effective_batch or _effective_batch(every)}


def wanted(config: dict[str, Any], words: list[str]) -> dict[str, Any]:
    """The settings that a run of a row must have.

    Args:
        config: Configuration of the row as plain values.
        words: Overrides that make it; what they say of `SAME` is asked for too.
    """
    typed = [word.lstrip("+~").partition("=")[0] for word in words]
    settings = defining(config)
    left_open = [name for name in SAME if not covers(typed, name)]
    return {name: value for name, value in settings.items() if name not in left_open}


def differences(asked: dict[str, Any], found: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings in which a run is not what is asked for, with both values; None: it is not there.

    An effective batch that cannot be known, because devices are counted when a run starts, differs
    from none.
    """
    unlike = {}
    for name in {**asked, **found}:
        one, other = asked.get(name), found.get(name)
        left_open = name in SAME and name not in asked
        unknown = name == "effective_batch" and None in (one, other)
        if one != other and not left_open and not unknown:
            unlike[name] = (one, other)
    return unlike


def _without_place(value: Any) -> Any:
    """A value in which a class of this package has its name alone: where it stands may change."""
    if isinstance(value, list):
        return [_without_place(one) for one in value]
    if isinstance(value, dict):
        return {key: _without_place(one) for key, one in value.items()}
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
