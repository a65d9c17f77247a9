"""Convert the state dict of an original to our names, or list everything that does not fit."""

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from saformer.config.files import conf_dir
from saformer.errors import CheckpointError
from saformer.interop.originals import ORIGINALS, Original, tensors
from saformer.models.block import Block
from saformer.models.layers import ConvBN
from saformer.training.module import SAFormerModule

Weights = Mapping[str, Tensor]

# If one of these settings differs, it is another network; the presets of the family set them right.
KIND = {
    *("model.residual", "model.stem", "model.stem_depth", "model.stages", "model.head_lif"),
    *("model.dwc.place", "attention.name"),
}


class Converted(NamedTuple):
    """Weights under our names."""

    original: Original
    """The original that they come from."""
    state_dict: dict[str, Tensor]
    """The complete state dict for `SAFormerModule.load_state_dict`."""
    left_out: list[str]
    """Names that no forward pass of the original reads."""


def convert(weights: Weights, module: SAFormerModule) -> Converted:
    """Rename the weights of an original for a module that computes the same function with them.

    Linear [out, in] and Conv1d [out, in, 1] weights become those of 1x1 convolutions.

    Args:
        weights: State dict of the original.
        module: The network, built with the settings of the original's code; it is not changed.

    Raises:
        CheckpointError: The names belong to no original, the settings differ from those of its
            code, or names or shapes do not fit; the message then lists all that do not.
    """
    original = recognise(weights)
    _check_settings(weights, original, module)
    target = module.state_dict()
    pairs = dict(_pairs(original, module))
    present = {ours: weights[theirs] for ours, theirs in pairs.items() if theirs in weights}
    unused = _unused(weights, original, module)
    fitted = {ours: _as_convolution(tensor, target[ours]) for ours, tensor in present.items()}
    wrong = [
        *(
            f"{pairs[ours]} is missing: {ours} is {_shape(target[ours])}"
            for ours in pairs.keys() - present.keys()
        ),
        *(
            f"{name} {_shape(weights[name])} has no place here"
            for name in weights.keys() - pairs.values() - unused.keys()
        ),
        *(
            f"{pairs[ours]} is {_shape(present[ours])}: {ours} is {_shape(target[ours])}"
            for ours, tensor in fitted.items()
            if tensor.shape != target[ours].shape
        ),
        *(
            f"{name} is {_shape(weights[name])}: by these settings it would be {shape}"
            for name, shape in unused.items()
            if _shape(weights[name]) != shape
        ),
    ]
    if wrong:
        sizes = _sizes(weights, original)
        other = {name: size for name, size in sizes.items() if size != _setting(module, name)}
        fix = f"\nIts sizes are not those of these settings: type {_words(other)}" if other else ""
        raise CheckpointError(
            f"{_describe(weights, original)} does not fit {module.config.model.name} on "
            f"{module.config.dataset.name}:\n  " + "\n  ".join(sorted(wrong)) + fix
        )
    return Converted(original, target | fitted, list(unused))


def recognise(weights: Weights) -> Original:
    """Find the original that has most of the names.

    Raises:
        CheckpointError: No original has more than half of them.
    """
    names = Counter(map(numberless, weights))
    best = max(ORIGINALS, key=lambda original: sum(names[name] for name in original.names()))
    if 2 * sum(names[name] for name in best.names()) <= len(weights):
        known = ", ".join(dict.fromkeys(original.name for original in ORIGINALS))
        raise CheckpointError(
            f"its tensors ({', '.join(list(weights)[:3])}, ...) have the names of none of {known}"
        )
    return best


def numberless(name: str) -> str:
    """Replace the number of a block in a name by `#`."""
    return re.sub(r"^(block|stage\d)\.\d+\.", r"\1.#.", name)


def _check_settings(weights: Weights, original: Original, module: SAFormerModule) -> None:
    """Refuse settings with which the same weights would compute something else."""
    wanted = original.settings(module.config.dataset.name)
    actual = {name: _setting(module, name) for name in wanted}
    differ = [name for name in wanted if actual[name] != wanted[name]]
    what = _describe(weights, original)
    if KIND & set(differ) or not _alike(original, module):
        raise CheckpointError(
            f"{what} is another network than {module.config.model.name}: "
            f"{_right_model(weights, original)}"
        )
    if differ:
        theirs, ours = (_words({n: of[n] for n in differ}) for of in (wanted, actual))
        raise CheckpointError(f"{what} was made with {theirs}, not {ours}: type {theirs}")


def _describe(weights: Weights, original: Original) -> str:
    """Name the original and its sizes, for a message."""
    return f"{original.name} ({original.source}) of {_words(_sizes(weights, original))}"


def _right_model(weights: Weights, original: Original) -> str:
    """Say which of our presets the user should type."""
    sizes = _sizes(weights, original)
    name = f"{original.preset}_{sizes['model.depth']}_{sizes['model.dim']}"
    name += "_events" if sizes["dataset.in_channels"] == 2 else ""
    presets = sorted(path.stem for path in (conf_dir() / "model").glob(f"{original.preset}_*.yaml"))
    return f"type model={name}" if name in presets else f"its models are {', '.join(presets)}"


def _sizes(weights: Weights, original: Original) -> dict[str, int | None]:
    """Settings that can be read from shapes and names of the weights."""
    (_, first), *_ = tensors(original.stages[0][0][0])

    def size(name: str, axis: int) -> int | None:
        shape = weights[name].shape if name in weights else ()
        return shape[axis] if axis < len(shape) else None

    blocks = {match[0] for name in weights if (match := re.match(r"(block|stage\d)\.\d+", name))}
    return {
        "model.dim": size("head.weight", 1),
        "model.depth": len(blocks),
        "dataset.in_channels": size(first, 1),
        "dataset.num_classes": size("head.weight", 0),
    }


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)


def _setting(module: SAFormerModule, name: str) -> Any:
    """A setting by its dotted name; for `model.stages`, the attentions of the stages."""
    value: Any = module.hparams["config"]
    for part in name.split("."):
        value = value[part] if value is not None else None
    if name == "model.stages" and value is not None:
        return [stage["attention"] for stage in value]
    return value


def _words(settings: Mapping[str, Any]) -> str:
    """Settings as the user types them on the command line."""
    values = (json.dumps(v, separators=(",", ":")).replace('"', "") for v in settings.values())
    return " ".join(f"{name}={value}" for name, value in zip(settings, values, strict=True))


def _pairs(original: Original, module: SAFormerModule) -> Iterator[tuple[str, str]]:
    """Yield our name and their name of every tensor of the layers and of the head."""
    names = {part: name for name, part in module.named_modules()}
    for (embedding, block), (stem, blocks) in zip(original.stages, _stages(module), strict=True):
        theirs = [*embedding]
        for i in range(len(blocks)):
            theirs += [layer.replace("#", str(i)) for layer in block]
        for layer, ours in zip(theirs, [*stem, *itertools.chain(*blocks)], strict=True):
            for part, tensor in tensors(layer):
                if part != "conv.bias" or ours.conv.bias is not None:
                    yield f"{names[ours]}.{part}", tensor
    yield from ((f"backbone.head.{part}", f"head.{part}") for part in ("weight", "bias"))


def _stages(module: SAFormerModule) -> list[tuple[list[ConvBN], list[list[ConvBN]]]]:
    """The layers of each patch embedding, and of every block after it, in order."""
    stages: list[tuple[list[ConvBN], list[list[ConvBN]]]] = []
    for part in (module.backbone.stem, *module.backbone.blocks):
        layers = [layer for layer in part.modules() if isinstance(layer, ConvBN)]
        if isinstance(part, Block):
            stages[-1][1].append(layers)
        else:
            stages.append((layers, []))
    return stages


def _alike(original: Original, module: SAFormerModule) -> bool:
    """Whether embeddings and blocks have as many layers as in the original."""
    wanted = [(len(embedding), {len(block)}) for embedding, block in original.stages]
    actual = [(len(stem), {len(block) for block in blocks}) for stem, blocks in _stages(module)]
    return wanted == actual


def _unused(
    weights: Weights, original: Original, module: SAFormerModule
) -> dict[str, tuple[int, ...]]:
    """Names that no forward pass uses, with the shapes that they should have."""
    model, image_size = module.config.model, module.config.dataset.image_size
    tokens = (image_size // model.patch_size) ** 2
    sizes = {"dim": model.dim, "heads": model.num_heads, "tokens": tokens, "1": 1}
    return {
        name: tuple(sizes[size] for size in original.unused[numberless(name)].split())
        for name in weights
        if numberless(name) in original.unused
    }


def _as_convolution(tensor: Tensor, target: Tensor) -> Tensor:
    """Reshape weights of a Linear or Conv1d to those of a Conv2d, and convert to our dtype."""
    if target.ndim == 4:
        tensor = tensor.reshape(tensor.shape + (1,) * (4 - tensor.ndim))
    return tensor.to(target.dtype)
