"""Checkpoints as files: read and compare them, and say each way in which they can be wrong.

They hold plain data and are always read with `weights_only=True`, so that a file from a stranger
cannot run code.
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
"""Those of a run, in the order in which training goes on from the first that is whole."""

# Settings that shape the parameters or what they mean, and the seed, by which a run is known;
# training goes on only if they agree.
RUN_SETTINGS = ("seed", "model", "attention", "neuron", "timesteps")
DATA_SETTINGS = (
    *("name", "num_classes", "in_channels", "image_size", "crop_pct"),
    *("mean", "std", "events"),
)
NODES = ("trainer", "dataset", "model", "attention", "neuron", "energy")
# What snnTorch keeps of a neuron's settings in buffers; where learned, they are parameters.
CONSTANTS = ("alpha", "beta", "threshold", "graded_spikes_factor", "reset_mechanism_val")
# Where a checkpoint holds what training made; the second and third are those of an average.
TRAINED = ("state_dict", "current_model_state", "averaging_state", "optimizer_states")


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of this project onto the CPU.

    Raises:
        CheckpointError: There is no such file, it is damaged, or it is something else.
    """
    path = Path(path)
    if not path.exists():
        if str(path).startswith("ckpt_path="):
            raise CheckpointError(f"{path} is no file: name it here without ckpt_path=")
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
        # What torch raises for a cut-off or foreign file differs by version and by where it is cut.
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
    """What training has made, by name: weights, statistics, averages, moments of the optimizer."""
    found = (pair for key in TRAINED for pair in named_tensors(checkpoint.get(key), key))
    return {name.removeprefix("state_dict."): value for name, value in found}


def saved_config(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The settings of the run that wrote a checkpoint, as plain data.

    Those of a run are resolved when they are saved. An interpolation would be somebody else's, who
    would read the environment with it; only what is the machine's, and is never followed, may hold
    the like: a folder can be called so.

    Raises:
        CheckpointError: They are no plain data, or hold what no run writes.
    """
    config: dict[str, Any] = checkpoint["hyper_parameters"]["config"]
    for name in NODES:
        node = config.get(name, {} if name == "energy" else None)  # that is younger than some
        if not isinstance(node, dict):
            raise _odd(name, node)
    for name, value in config.items():
        _require_plain(str(name), value)
    memory = config.get("memory")
    if isinstance(memory, dict) and memory.get("spikes") == "byte":
        # An option no more; it gave the results of any other.
        return config | {"memory": memory | {"spikes": "bit"}}
    return config


def _require_plain(name: str, value: Any) -> None:
    """Hold what is stored under a dotted name against what a run writes."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else ((None, each) for each in value)
        for key, each in items:
            _require_plain(name if key is None else f"{name}.{key}", each)
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
        f"the checkpoint has {ascii(name)[1:-1]}={shown}, which no run writes: it was changed by "
        "somebody, and nothing is done with it"
    )


def at_epoch_end(checkpoint: dict[str, Any]) -> bool:
    """Whether training can go on exactly: all of it is there, and no epoch is half done."""
    if "loops" not in checkpoint:  # imported weights
        return False
    epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
    return "optimizer_states" in checkpoint and epochs["processed"] == epochs["started"]


def require_resumable(path: str, saved: dict[str, Any], current: dict[str, Any]) -> None:
    """Refuse to go on from a checkpoint of another model, other data or another seed.

    Args:
        path: The checkpoint, for the message.
        saved: Settings of the run that wrote it.
        current: Settings of this run.

    Raises:
        CheckpointError: A setting that matters differs; the message names the first.
    """

    def relevant(config: dict[str, Any]) -> dict[str, Any]:
        node = {key: config[key] for key in RUN_SETTINGS}
        node["neuron"] = {k: v for k, v in node["neuron"].items() if k != "backend"}
        data = {key: config["dataset"][key] for key in DATA_SETTINGS if key in config["dataset"]}
        if data.get("events"):  # which recordings are damaged is none of the model's business
            data["events"] = {k: v for k, v in data["events"].items() if k != "bad_recordings"}
        node["dataset"] = data
        return leaves(node)

    before, now = relevant(saved), relevant(current)
    # Younger than some checkpoints, and nothing by default.
    own = {name: None for name in now if name == "neuron.layer" or ".options." in name}
    for name, value in (own | before).items():
        if now.get(name) != value:
            typed = {"model.name": "model", "dataset.name": "dataset"}.get(name, name)
            raise CheckpointError(
                f"ckpt_path={path} was trained with {typed}={value}, this run has "
                f"{typed}={now.get(name)}: type {typed}={value}, or start without ckpt_path"
            )


def load_weights(path: str, checkpoint: dict[str, Any], module: nn.Module) -> None:
    """Load the weights of a checkpoint into a module.

    Constants of neurons, which are saved with the weights, stay those of the module's settings: so
    `neuron.tau` and thresholds can be changed for an evaluation.

    Raises:
        CheckpointError: They do not fit; the message names the first that does not.
    """
    weights, own = checkpoint["state_dict"], module.state_dict()
    for name in sorted(weights.keys() | own.keys()):
        found = tuple(weights[name].shape) if name in weights else "nothing"
        wanted = tuple(own[name].shape) if name in own else "nothing"
        if found != wanted:
            raise CheckpointError(
                f"ckpt_path={path} does not fit this model: {name} is {found} in the checkpoint "
                f"and {wanted} in the model"
            )
    constants = [n for n, _ in module.named_buffers() if n.rpartition(".")[2] in CONSTANTS]
    module.load_state_dict({**weights, **{name: own[name] for name in constants}})
