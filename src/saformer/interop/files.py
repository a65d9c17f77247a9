"""Read weights from files of other programs, and write them as checkpoints of ours."""

import argparse
import io
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saformer.errors import CheckpointError
from saformer.finite import nonfinite, shortened
from saformer.interop.convert import Converted
from saformer.training.module import SAFormerModule
from saformer.weights_file import require_dense, require_whole

# Keys under which timm's CheckpointSaver and the scripts of SpikingJelly and MAE store the weights.
PLACES = ("state_dict", "model", "model_state", "state_dict_ema")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the state dict in a checkpoint file to the CPU, without running code from the file.

    The authors' training scripts also store their arguments as an `argparse.Namespace`, which is
    allowed because it is plain data.

    Raises:
        CheckpointError: The file is missing or damaged, holds more than plain data, or holds no
            weights.
    """
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        problem = "is no regular file" if path.exists() and not path.is_dir() else problem
        raise CheckpointError(f"{path} {problem}: name a file of weights")
    try:
        if zipfile.is_zipfile(path):  # checkpoints from before PyTorch 1.6 are not zip files
            require_whole(path)
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
        require_dense(content)
    except Exception as error:
        # The exception of torch depends on its version and on the kind of damage.
        raise CheckpointError(f"{path} cannot be read: {_reason(error)}") from error
    place = next((key for key in PLACES if isinstance(_get(content, key), dict)), None)
    weights = content if place is None else content[place]
    if not isinstance(weights, dict) or not weights or not _all_tensors(weights):
        raise CheckpointError(
            f"{path} holds no weights, neither as they are nor in {', '.join(PLACES)}"
        )
    if bad := nonfinite(weights):
        raise CheckpointError(
            f"{path} holds values that are not finite ({shortened(bad)}): it was written by a "
            "training that went bad; use an earlier one"
        )
    # DistributedDataParallel adds this prefix to every name.
    return {name.removeprefix("module."): tensor for name, tensor in weights.items()}


def _reason(error: Exception) -> str:
    """Why torch refused a file."""
    if match := re.search(r"GLOBAL (\S+)", str(error)):
        return (
            f"it holds more than plain data ({match[1]}), and reading that could run code. If you "
            "trust it, save its state dict alone, with torch, to another file"
        )
    return "it is damaged or not a checkpoint"


def _get(content: Any, key: str) -> Any:
    return content.get(key) if isinstance(content, dict) else None


def _all_tensors(weights: dict[Any, Any]) -> bool:
    return all(isinstance(n, str) and isinstance(t, Tensor) for n, t in weights.items())


def write_checkpoint(out: Path, converted: Converted, module: SAFormerModule, origin: Path) -> None:
    """Write a checkpoint that `saformer-eval` reads, to a file that does not exist.

    Args:
        out: The file.
        converted: The weights.
        module: The network for these weights, with its settings.
        origin: File of the original weights; the checkpoint records its name.

    Raises:
        OSError: The file exists, or cannot be written.
    """
    checkpoint = {
        "state_dict": converted.state_dict,
        "hyper_parameters": {"config": module.hparams["config"]},
        "imported": {"file": origin.name, "source": converted.original.source},
    }
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("xb") as file:
        try:
            file.write(buffer.getbuffer())
        except BaseException:
            out.unlink()  # remove the incomplete file that we created
            raise
