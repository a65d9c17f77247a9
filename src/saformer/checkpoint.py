"""Read and compare checkpoint files, with a clear error for each way in which they can be wrong.

Checkpoints contain plain data. We always read them with `weights_only=True`, so that a file from a
stranger cannot run code.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from saformer.dotted import OF_MACHINE, covers, leaves
from saformer.errors import CheckpointError
from saformer.finite import named_tensors, nonfinite, shortened
from saformer.weights_file import require_dense, require_regular, require_whole

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
OWN = (LAST, PREVIOUS, "best.ckpt")
"""Checkpoints of a run; training resumes from the first of them that is not damaged."""

# The seed, and settings that determine the parameters or their meaning. Training resumes only if
# they are equal.
RUN_SETTINGS = ("seed", "model", "attention", "neuron", "timesteps")
DATA_SETTINGS = (
    *("name", "num_classes", "in_channels", "image_size", "crop_pct"),
    *("mean", "std", "events"),
)
NODES = ("trainer", "dataset", "model", "attention", "neuron", "energy")
# snnTorch stores these settings of a neuron in buffers, or in parameters if they are learned.
CONSTANTS = ("alpha", "beta", "threshold", "graded_spikes_factor", "reset_mechanism_val")
# Keys of a checkpoint with trained values; the second and third exist with weight averaging.
TRAINED = ("state_dict", "current_model_state", "averaging_state", "optimizer_states")


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of this project onto the CPU.

    Raises:
        CheckpointError: The file is missing, damaged, or not a checkpoint of this project.
    """
    path = Path(path)
    if not path.exists():
        if str(path).startswith("ckpt_path="):
            raise CheckpointError(f"{path} is not a file: give its path here without ckpt_path=")
        raise CheckpointError(f"ckpt_path={path} does not exist")
    try:
        require_regular(path)
        require_whole(path)
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        require_dense(checkpoint)
    except PermissionError:
        raise CheckpointError(
            f"ckpt_path={path} cannot be read: permission denied. Ask its owner for it, or use "
            "another one"
        ) from None
    except Exception as error:
        # The exception of torch depends on its version and on the kind of damage.
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise CheckpointError(
            f"ckpt_path={path} cannot be read ({reason}): it is damaged or not a checkpoint; "
            "use another one of the same run"
        ) from error
    try:
        checkpoint["hyper_parameters"]["config"]["model"]
    except (KeyError, TypeError, IndexError):
        raise CheckpointError(
            f"ckpt_path={path} holds no SAFormer configuration: it comes from another program"
        ) from None
    if "state_dict" not in checkpoint:
        raise CheckpointError(f"ckpt_path={path} holds no weights: use another one of the same run")
    if bad := nonfinite(trained_values(checkpoint)):
        raise CheckpointError(
            f"ckpt_path={path} holds values that are not finite ({shortened(bad)}): it was written "
            "by a training that went bad; use an earlier one"
        )
    return checkpoint


def trained_values(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """All trained values by name: weights, statistics, averages, moments of the optimizer."""
    pairs = (pair for key in TRAINED for pair in named_tensors(checkpoint.get(key), key))
    return {name.removeprefix("state_dict."): value for name, value in pairs}


def saved_config(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The settings of the run that wrote a checkpoint, as plain data.

    A run resolves all interpolations before it saves its settings. So an interpolation `${...}` was
    added later, maybe by an attacker who wants to read environment variables, and it is refused.
    Only settings of the machine, which are never taken from a checkpoint, may contain such text,
    because the name of a folder can contain it.

    Raises:
        CheckpointError: The settings are not plain data, or contain something that no run writes.
    """
    config: dict[str, Any] = checkpoint["hyper_parameters"]["config"]
    for name in NODES:
        node = config.get(name, {} if name == "energy" else None)  # old checkpoints have no energy
        if not isinstance(node, dict):
            raise _odd(name, node)
    for name, value in config.items():
        _require_plain(str(name), value)
    memory = config.get("memory")
    if isinstance(memory, dict) and memory.get("spikes") == "byte":
        # This option no longer exists; it gave the same results as all others.
        return config | {"memory": memory | {"spikes": "bit"}}
    return config


def _require_plain(name: str, value: Any) -> None:
    """Refuse a value under a dotted name that no run would write."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else ((None, inner) for inner in value)
        for key, inner in items:
            _require_plain(name if key is None else f"{name}.{key}", inner)
        return
    text = isinstance(value, str) and (
        ("${" not in value and value.isprintable()) or covers(OF_MACHINE, name)
    )
    number = type(value) in (bool, float) or (type(value) is int and value.bit_length() <= 64)
    if not (value is None or text or number):
        raise _odd(name, value)


def _odd(name: str, value: Any) -> CheckpointError:
    shown = type(value).__name__ if isinstance(value, int) else ascii(value)[:80]
    return CheckpointError(
        f"the checkpoint has {ascii(name)[1:-1]}={shown}, which no run writes: somebody has "
        "changed the file, so it is not used"
    )


def at_epoch_end(checkpoint: dict[str, Any]) -> bool:
    """Whether training can resume exactly: the state is complete, and no epoch is half done."""
    if "loops" not in checkpoint:  # imported weights
        return False
    epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
    return "optimizer_states" in checkpoint and epochs["processed"] == epochs["started"]


def require_resumable(path: str, saved: dict[str, Any], current: dict[str, Any]) -> None:
    """Refuse to resume from a checkpoint of another model, other data or another seed.

    Args:
        path: Path of the checkpoint, for the message.
        saved: Settings of the run that wrote it.
        current: Settings of this run.

    Raises:
        CheckpointError: A setting that matters differs; the message names the first.
    """

    def relevant(config: dict[str, Any]) -> dict[str, Any]:
        node = {key: config[key] for key in RUN_SETTINGS}
        node["neuron"] = {k: v for k, v in node["neuron"].items() if k != "backend"}
        data = {key: config["dataset"][key] for key in DATA_SETTINGS if key in config["dataset"]}
        if data.get("events"):  # bad_recordings does not affect the model
            data["events"] = {k: v for k, v in data["events"].items() if k != "bad_recordings"}
        node["dataset"] = data
        return leaves(node)

    before, now = relevant(saved), relevant(current)
    # Old checkpoints do not have these settings; they had the same effect as the default None.
    defaults = {name: None for name in now if name == "neuron.layer" or ".options." in name}
    for name, value in (defaults | before).items():
        if now.get(name) != value:
            typed = {"model.name": "model", "dataset.name": "dataset"}.get(name, name)
            raise CheckpointError(
                f"ckpt_path={path} was trained with {typed}={value}, this run has "
                f"{typed}={now.get(name)}: type {typed}={value}, or start without ckpt_path"
            )


def load_weights(path: str, checkpoint: dict[str, Any], module: nn.Module) -> None:
    """Load the weights of a checkpoint into a module.

    The checkpoint also contains constants of neurons. They are not loaded but keep the values of
    the module's settings, so that an evaluation can change `neuron.tau` and thresholds.

    Raises:
        CheckpointError: The weights do not fit; the message names the first that does not.
    """
    weights, current = checkpoint["state_dict"], module.state_dict()
    for name in sorted(weights.keys() | current.keys()):
        found = tuple(weights[name].shape) if name in weights else "nothing"
        wanted = tuple(current[name].shape) if name in current else "nothing"
        if found != wanted:
            raise CheckpointError(
                f"ckpt_path={path} does not fit this model: {name} is {found} in the checkpoint "
                f"and {wanted} in the model"
            )
    constants = [n for n, _ in module.named_buffers() if n.rpartition(".")[2] in CONSTANTS]
    module.load_state_dict({**weights, **{name: current[name] for name in constants}})
