"""`saformer-export`: turn a checkpoint into a folder of files that do not need this package."""

import json
from collections.abc import Callable, Collection
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saformer.commands.words import WordParser
from saformer.errors import CheckpointError, UserError
from saformer.escape import say

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

    from saformer.config.schema import Config
    from saformer.export.check import Values

Compared = Callable[[Callable[["Tensor"], "Tensor"]], dict[str, Any]]
"""Compares a written network with the folded network that it comes from, and the checkpoint."""
EPILOG = """\
  saformer-export outputs/NAME/RUN/checkpoints/best.ckpt deployed

  deployed/model.pt2     the whole network, for torch.export.load: bytes in, logits out
  deployed/model.onnx    the same for onnxruntime and others; needs pip install 'saformer[export]'
  deployed/export.json   input and output, versions, results of the comparison

OUT is a new folder, or an empty one: nothing is overwritten. docs/export.md says how to load them.
"""
INPUTS = 16  # number of inputs for the comparison
NAMED = 4  # number of layers that the terminal names; export.json has all
ONNX = ("onnx", "onnxscript")  # packages that write ONNX files
TESTED = "2.14"  # oldest PyTorch that is known to write this network as ONNX
RUNTIME = "onnxruntime"  # package that runs them


def run(words: list[str]) -> int:
    """Carry out one command line.

    Returns:
        The exit code, 0.

    Raises:
        CheckpointError: The file is no checkpoint of ours.
        UserError: OUT holds something already.
    """
    parser = WordParser(
        "saformer-export",
        description="Write a trained network for deployment: torch.export and ONNX.",
        epilog=EPILOG,
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=Path)
    parser.add_argument("out", metavar="OUT", type=Path, help="a new folder")
    parser.add_argument(
        "--trust",
        metavar="NAME",
        action="append",
        default=[],
        help="a module or class of your own that the checkpoint may import (docs/extend.md)",
    )
    named = parser.parse_args(words)
    out: Path = named.out
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out} exists, and nothing is overwritten: name a new folder")
    for line in export(named.checkpoint, out, named.trust):
        say(line)
    return 0


def export(checkpoint: Path, out: Path, trust: Collection[str] = ()) -> list[str]:
    """Write all files, and compare each with the checkpoint.

    Args:
        checkpoint: A checkpoint of a run or of `saformer-import`.
        out: The folder to create.
        trust: Modules and classes that may be imported, as in `saformer.load`.

    Returns:
        Lines for a terminal: what was written, and how it compares.
    """
    import torch

    from saformer.classifier import load
    from saformer.config.check import to_dict
    from saformer.export.check import compare, look
    from saformer.export.program import export_program, save_program
    from saformer.files import write_json
    from saformer.models.fold_batch_norm import fold_batch_norm
    from saformer.runs.provenance import git_state, versions

    classifier = load(checkpoint, trust)
    config = classifier.config
    x, source = _inputs(config)
    folded = fold_batch_norm(classifier)
    out.mkdir(parents=True, exist_ok=True)

    def compared(written: Callable[["Tensor"], "Tensor"]) -> dict[str, Any]:
        return {
            "against_the_checkpoint": asdict(compare(classifier, written, x)),
            "against_the_folded_network": asdict(compare(folded, written, x)),
        }

    taken, given = look(folded.backbone, folded.prepare(x))
    program = export_program(folded, x)
    path = out / "model.pt2"
    save_program(program, path)
    agreed = compared(torch.export.load(path).module())
    onnx, onnx_lines = _export_onnx(program, out / "model.onnx", compared)
    facts: dict[str, Any] = {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "checkpoint": str(checkpoint),
        "run_commit": _run_commit(checkpoint),
        "export_commit": git_state(Path(__file__).parents[1])["commit"],
        "versions": versions(*ONNX, RUNTIME),
        "input": _contract(config, x),
        "output": {"shape": ["B", config.dataset.num_classes], "dtype": "float32"}
        | {"meaning": "logits, mean over the timesteps"},
        "inputs_compared": source,
        "program": {"file": path.name, **agreed},
        "onnx": onnx,
        "weight_layers_take": [asdict(layer) for layer in taken],
        "neurons_give": [asdict(layer) for layer in given],
        "config": to_dict(config),
    }
    write_json(out / "export.json", facts)
    shape = ", ".join(map(str, facts["input"]["shape"]))
    return [
        f"{config.model.name} on {config.dataset.name}, T={config.timesteps}: "
        f"uint8 [{shape}] -> logits [B, {config.dataset.num_classes}], compared on {source}",
        f"{path}: {_agreement(agreed)}",
        *onnx_lines,
        f"only zeros and ones: {_binary(given, 'neuron layers give them')}",
        f"only zeros and ones: {_binary(taken, 'weight layers take them')}",
        f"{out / 'export.json'}: all these results in full",
    ]


def _export_onnx(
    program: "ExportedProgram", path: Path, compared: Compared
) -> tuple[dict[str, Any] | None, list[str]]:
    """Write the program as ONNX and run it; return facts for export.json, and lines to print."""
    import torch

    from saformer.export.onnx import missing, run_onnx, save_onnx
    from saformer.export.program import draws

    if absent := missing(*ONNX):
        return None, [
            f"no ONNX, since {' and '.join(absent)} is not installed: pip install "
            "'saformer[export]', and export again to another folder"
        ]
    try:
        save_onnx(program, path)
    except Exception as error:
        if torch.__version__ >= TESTED:
            raise
        return None, [
            f"no ONNX: PyTorch {torch.__version__} cannot write this network "
            f"({type(error).__name__}), PyTorch {TESTED} can"
        ]
    if missing(RUNTIME):
        return {"file": path.name}, [f"{path}: not compared, since {RUNTIME} is not installed"]
    agreed = compared(run_onnx(path))
    note = f"; its random spikes differ, since {RUNTIME} draws them" if draws(program) else ""
    return {"file": path.name, **agreed}, [f"{path}: {_agreement(agreed)}{note}"]


def _agreement(agreed: dict[str, Any]) -> str:
    """Say how far a file is from the network with BatchNorm folded, and from the checkpoint."""
    network, checkpoint = agreed["against_the_folded_network"], agreed["against_the_checkpoint"]
    return (
        f"logits up to {checkpoint['largest']:.2f}, largest |difference| "
        f"{network['difference']:.1e} to the network with BatchNorm folded, "
        f"{checkpoint['difference']:.1e} to the checkpoint; {checkpoint['changed']} of "
        f"{checkpoint['inputs']} classes changed"
    )


def _binary(layers: "list[Values]", what: str) -> str:
    """Say how many layers have only zeros and ones, and name the first others."""
    others = [layer for layer in layers if layer.binary < 1]
    text = f"{len(layers) - len(others)} of {len(layers)} {what}"
    for layer in others[:NAMED]:
        text += f"; {layer.layer}: {'whole numbers' if layer.whole else 'real numbers'}"
    return text + (f"; {len(others) - NAMED} more" if len(others) > NAMED else "")


def _inputs(config: "Config") -> tuple["Tensor", str]:
    """Get bytes as a user has them, uint8 [B, ...], and say what they are."""
    import torch

    from saformer.data.module import SpikingDataModule
    from saformer.data.settings import Resize

    name = config.dataset.name
    few = replace(config.dataset, eval_batch_size=INPUTS, num_workers=0, device_resident=False)
    data = SpikingDataModule(few, config.augment, config.seed, config.timesteps)
    try:
        data.setup()
        x, _ = next(iter(data.test_dataloader()))
        return x, f"{len(x)} test items of {name}"
    except UserError as error:
        if few.events is not None and few.events.resize is Resize.bilinear:
            raise CheckpointError(
                f"the program resizes the frames of {name} from the size of its recordings, "
                f"which cannot be read: {error}"
            ) from None
    frames = () if few.events is None else (config.timesteps,)
    size = (INPUTS, *frames, few.in_channels, few.image_size, few.image_size)
    generator = torch.Generator().manual_seed(0)
    limit = 256 if few.events is None else 4  # event counts are small numbers
    x = torch.randint(0, limit, size, dtype=torch.uint8, generator=generator)
    return x, f"{INPUTS} inputs of random bytes, since {name} cannot be read here"


def _contract(config: "Config", x: "Tensor") -> dict[str, Any]:
    """Describe the input of the program."""
    axes = ["B", *x.shape[1:]]
    meaning = "pixels of RGB or grey images, [B, C, H, W]; scaled and normalised inside"
    if config.dataset.events is not None:
        meaning = "events counted in T frames, darker then brighter, [B, T, 2, H, W]"
    return {"shape": axes, "dtype": "uint8", "range": [0, 255], "meaning": meaning}


def _run_commit(checkpoint: Path) -> str | None:
    """Commit of the code that trained a checkpoint, from the `run.json` of its run."""
    try:
        run = json.loads(
            (checkpoint.absolute().parent.parent / "run.json").read_text(encoding="utf-8")
        )
        commit: str | None = run["starts"][-1]["git"]["commit"]
        return commit
    except (OSError, ValueError, LookupError, TypeError):
        return None
