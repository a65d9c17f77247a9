"""`saformer-export`: a checkpoint in, a folder of files that need none of this package out."""

import argparse
import json
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, replace
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saformer.commands.words import WordParser
from saformer.errors import CheckpointError, UserError
from saformer.escape import say

if TYPE_CHECKING:
    from torch import Tensor

    from saformer.config.schema import Config
    from saformer.export.check import Values

EPILOG = """\
  saformer-export outputs/NAME/RUN/checkpoints/best.ckpt deployed

  deployed/model.pt2     the whole network, for torch.export.load: bytes in, logits out
  deployed/nir/*.nir     the chains of its layers that NIR can express
  deployed/export.json   what goes in and out, what was compared, what NIR lacks

OUT is a new folder, or an empty one: nothing is overwritten. docs/export.md says how to load them.
"""
INPUTS = 16  # that are compared
NAMED = 4  # layers that the terminal names; export.json has all


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
        description="Write a trained network for deployment: torch.export, and NIR graphs.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
        out: The folder; it is made.
        trust: As of `saformer.load`.

    Returns:
        What was written and found, in lines for a terminal.
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
    path = out / "model.pt2"
    save_program(export_program(folded, x), path)
    program = torch.export.load(path).module()
    same, exact = compare(classifier, program, x), compare(folded, program, x)
    taken, given = look(folded.backbone, folded.prepare(x))
    facts: dict[str, Any] = {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "checkpoint": str(checkpoint),
        "run_commit": _run_commit(checkpoint),
        "export_commit": git_state(Path(__file__).parents[1])["commit"],
        "versions": versions() | _versions("nir", "nirtorch"),
        "input": _contract(config, x),
        "output": {"shape": ["B", config.dataset.num_classes], "dtype": "float32"}
        | {"meaning": "logits, mean over the timesteps"},
        "inputs_compared": source,
        "program": {
            "file": path.name,
            "against_the_checkpoint": asdict(same),
            "against_the_folded_network": asdict(exact),
        },
        "weight_layers_take": [asdict(layer) for layer in taken],
        "neurons_give": [asdict(layer) for layer in given],
    }
    shape = ", ".join(map(str, facts["input"]["shape"]))
    lines = [
        f"{path}: {config.model.name} on {config.dataset.name}, T={config.timesteps}, "
        f"uint8 [{shape}] -> logits [B, {config.dataset.num_classes}]",
        f"  against the checkpoint on {source}: largest |difference| {same.difference:.1e} of "
        f"logits up to {same.largest:.2f}, {same.changed} of {same.inputs} classes changed; "
        f"against the folded network {exact.difference:.1e}",
        f"  zeros and ones alone: {_binary(given, 'neuron layers give')}",
        f"  zeros and ones alone: {_binary(taken, 'weight layers take')}",
    ]
    nir, told = _export_nir(folded.backbone, folded.prepare(x), out / "nir")
    write_json(out / "export.json", {**facts, "nir": nir, "config": to_dict(config)})
    return [*lines, *told, f"{out / 'export.json'}: all of this in full"]


def _export_nir(
    backbone: Any, x: "Tensor", folder: Path
) -> tuple[dict[str, Any] | None, list[str]]:
    """What export.json and the terminal are told of NIR."""
    from saformer.export.chains import split
    from saformer.export.nir import missing, write_chains

    if missing():
        names = ", ".join(missing())
        return None, [
            f"no NIR graphs, since {names} is not installed: pip install 'saformer[export]', and "
            "export again to another folder"
        ]
    folder.mkdir()
    parts = split(backbone)
    written = write_chains(backbone, parts.chains, x[:4], folder)
    layers = sum(len(graph.layers) for graph in written)
    differing = max(graph.differing for graph in written)
    difference = max(graph.difference for graph in written)
    lines = [
        f"{folder}: {layers} layers in {len(written)} graphs",
        f"  read again and run beside the network: {differing:.2%} of the values of a graph differ "
        f"at most, largest |difference| {difference:.1e}",
        "left out, since NIR cannot express it:",
    ]
    for why, count in Counter(parts.left_out.values()).most_common():
        lines.append(f"  {count:3}  {why}")
    graphs = [asdict(graph) for graph in written]
    return {"folder": folder.name, "graphs": graphs, "left_out": parts.left_out}, lines


def _binary(layers: "list[Values]", what: str) -> str:
    """How many layers have spikes, and the first of those that have not."""
    others = [layer for layer in layers if layer.binary < 1]
    text = f"{len(layers) - len(others)} of {len(layers)} {what}"
    for layer in others[:NAMED]:
        text += f"; {layer.layer}: {'whole numbers' if layer.whole else 'real numbers'}"
    return text + (f"; {len(others) - NAMED} more" if len(others) > NAMED else "")


def _inputs(config: "Config") -> tuple["Tensor", str]:
    """Bytes as a user has them, uint8 [B, ...], and what they are."""
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
                f"the program resizes the frames of {name}, and their side is that of its "
                f"recordings, which cannot be read: {error}"
            ) from None
    frames = () if few.events is None else (config.timesteps,)
    size = (INPUTS, *frames, few.in_channels, few.image_size, few.image_size)
    generator = torch.Generator().manual_seed(0)
    most = 256 if few.events is None else 4  # counts of events are small
    x = torch.randint(0, most, size, dtype=torch.uint8, generator=generator)
    return x, f"{INPUTS} inputs of random bytes, since {name} cannot be read here"


def _contract(config: "Config", x: "Tensor") -> dict[str, Any]:
    """What the program takes."""
    axes = ["B", *x.shape[1:]]
    meaning = "pixels of RGB or grey images, [B, C, H, W]; scaled and normalised inside"
    if config.dataset.events is not None:
        meaning = "events counted in T frames, darker then brighter, [B, T, 2, H, W]"
    return {"shape": axes, "dtype": "uint8", "range": [0, 255], "meaning": meaning}


def _run_commit(checkpoint: Path) -> str | None:
    """Commit of the code that trained it, as its run's `run.json` has it."""
    try:
        run = json.loads(
            (checkpoint.absolute().parent.parent / "run.json").read_text(encoding="utf-8")
        )
        commit: str | None = run["starts"][-1]["git"]["commit"]
        return commit
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _versions(*names: str) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found
