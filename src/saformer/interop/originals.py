"""The networks of the four original repositories, by the names in their state dicts.

The names are those in their model files, in the order in which the layers run. Our networks have
the same layers in the same order. `q_{conv,bn}` stands for a layer with the two names `q_conv` and
`q_bn`; `#` stands for the number of a block.
"""

import re
from dataclasses import dataclass, field
from typing import Any

Layers = tuple[str, ...]
BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True, kw_only=True)
class Original:
    """One model file: its layers, its other parameters, and the settings of its code."""

    name: str
    """Name of the network."""
    source: str
    """Repository and file."""
    preset: str
    """First part of the names of our presets for it."""
    stages: tuple[tuple[Layers, Layers], ...]
    """Layers of each patch embedding, and of each block after it."""
    unused: dict[str, str] = field(default_factory=dict)
    """Parameters that no forward pass uses, with their shapes."""
    code: dict[str, Any]
    """Settings of its code that the weights do not show; for `model.stages`, the attentions."""
    on: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Other values of these settings in the folder or recipe of a dataset."""
    remark: str = ""
    """What a user must also know about it."""

    def settings(self, dataset: str) -> dict[str, Any]:
        """Settings that it needs for a dataset."""
        return self.code | self.on.get(dataset, {})

    def names(self) -> set[str]:
        """All names of its state dict, with `#` for the number of a block."""
        layers = [layer for stage in self.stages for part in stage for layer in part]
        named = {theirs for layer in layers for _, theirs in tensors(layer)}
        return {"head.weight", "head.bias", *self.unused} | named


def tensors(layer: str) -> list[tuple[str, str]]:
    """The tensors of a layer: the name in our `ConvBN`, and the original name."""
    before, conv, bn, after = re.split("{(.*),(.*)}", layer)
    parts = [("conv", conv, part) for part in ("weight", "bias")]
    parts += [("bn", bn, part) for part in BATCH_NORM]
    return [(f"{ours}.{part}", f"{before}{theirs}{after}.{part}") for ours, theirs, part in parts]


def _layers(prefix: str, *names: str) -> Layers:
    """Layers with a common prefix; a name without braces gets the suffixes _conv and _bn."""
    return tuple(f"{prefix}.{n}" if "{" in n else f"{prefix}.{n}_{{conv,bn}}" for n in names)


LIF = {
    "neuron.tau": 2.0,
    "neuron.v_threshold": 1.0,
    "neuron.reset": "hard",
    "neuron.fire": "ge",
    "neuron.decay_input": True,
    "neuron.learnable_tau": False,
}
SSA = {
    "attention.name": "ssa",
    "attention.v_threshold": 0.5,
    "attention.qkv_bias": False,
    "attention.scale": 0.125,
}
SDSA = {
    "attention.name": "sdsa",
    "attention.v_threshold": 0.5,
    "attention.qkv_bias": False,
    "attention.erode": False,
}
FLAT = {"model.dwc.place": "none", "model.stages": None, "model.stem_depth": 4}
SPIKFORMER = {**LIF, **SSA, **FLAT, "model.residual": "sew", "model.head_lif": False}
SPIKINGFORMER = {**LIF, **SSA, **FLAT, "model.stem": "spikingformer", "model.head_lif": False}
SDT = {**LIF, **SDSA, **FLAT, "model.residual": "membrane", "model.stem": "sps"}
QKFORMER = {**LIF, **SSA, "model.dwc.place": "none", "model.head_lif": False}
COLOURS_OF_CIFAR10 = {
    "dataset.mean": [0.4914, 0.4822, 0.4465],
    "dataset.std": [0.2470, 0.2435, 0.2616],
}
LEAK = (
    "its code lets membranes run on from image to image, and its published accuracies were "
    "measured so: saformer-eval with attention.batch_leak=true does the same"
)

NORMS = {f"block.#.norm{i}.{part}": "dim" for i in (1, 2) for part in ("weight", "bias")}
SPS = _layers("patch_embed", "proj", *(f"proj_{{conv,bn}}{i}" for i in (1, 2, 3)), "rpe")
QKV = _layers("attn", "q", "k", "v", "proj")
LAST = _layers("ssa", "q", "k", "v", "proj")
QKTA = _layers("tssa", "q", "k", "proj")
FC = _layers("mlp", "fc1", "fc2")
MLP = _layers("mlp", "mlp1", "mlp2")

ORIGINALS = (
    Original(
        name="Spikformer",
        source="ZK-Zhou/spikformer, cifar10/model.py",
        preset="spikformer",
        stages=((SPS, tuple(n.replace("conv", "linear") for n in _layers("block.#", *QKV, *FC))),),
        unused=NORMS,
        code={**SPIKFORMER, "attention.qkv_bias": True, "model.patch_size": 4},
    ),
    Original(
        name="Spikformer",
        source="ZK-Zhou/spikformer, imagenet/model.py",
        preset="spikformer",
        stages=((SPS, _layers("block.#", *QKV, *FC)),),
        unused=NORMS,
        code={**SPIKFORMER, "model.patch_size": 16},
    ),
    Original(
        name="Spikformer",
        source="ZK-Zhou/spikformer, cifar10dvs/model.py",
        preset="spikformer",
        stages=((SPS, _layers("block.#", *QKV, *FC)),),
        unused={**NORMS, "pos_embed": "1 tokens dim", "norm.weight": "dim", "norm.bias": "dim"},
        code={
            **SPIKFORMER,
            **{"attention.scale": 0.25, "model.num_heads": 16, "model.patch_size": 16},
        },
    ),
    Original(
        name="Spikformer",
        source="ZK-Zhou/spikformer, model.py",
        preset="spikformer",
        stages=(
            (
                _layers("patch_embed", "block1", "block2", "block3", "block4", "rpe"),
                _layers("block.#", *QKV, *FC),
            ),
        ),
        unused=NORMS,
        code={**SPIKFORMER, "model.patch_size": 4},
    ),
    Original(
        name="Spikingformer",
        source="zhouchenlin2096/Spikingformer, cifar10/model.py and cifar100/model.py",
        preset="spikingformer",
        stages=(
            (
                _layers("patch_embed", "block0", "block1", "block2", "block3", "block4"),
                _layers("block.#", *QKV, *MLP),
            ),
        ),
        unused=NORMS,
        code={**SPIKINGFORMER, "model.patch_size": 4},
        on={"cifar100": {"model.num_heads": 8, **COLOURS_OF_CIFAR10}},
    ),
    Original(
        name="Spikingformer",
        source="zhouchenlin2096/Spikingformer, model.py of cifar10-dvs, dvs128-gesture, imagenet",
        preset="spikingformer",
        stages=(
            (
                _layers("patch_embed", "proj", "proj1", "proj2", "proj3", "proj4"),
                _layers("block.#", *QKV, *MLP),
            ),
        ),
        unused=NORMS,
        code={**SPIKINGFORMER, "model.patch_size": 16},
        on={
            "cifar10_dvs": {"neuron.tau": 1.5, "model.num_heads": 16},
            "dvs128_gesture": {"neuron.tau": 1.5, "model.num_heads": 16},
        },
    ),
    Original(
        name="Spike-driven Transformer",
        source="BICLab/Spike-Driven-Transformer, model/spikeformer.py",
        preset="sdt",
        stages=((SPS, _layers("block.#", *QKV, *FC)),),
        unused={"block.#.attn.talking_heads.weight": "heads heads 1"},
        code={**SDT, "model.head_lif": True},
        on={
            "cifar10_dvs": {
                "attention.erode": True,
                "model.patch_size": 4,
                "dataset.image_size": 64,
                "dataset.events.resize": "bilinear",
            },
            "dvs128_gesture": {"model.patch_size": 8},
        },
    ),
    Original(
        name="QKFormer",
        source="zhouchenlin2096/QKFormer, cifar10/model.py and cifar100/model.py",
        preset="qkformer",
        stages=(
            (
                _layers("patch_embed1", "proj", "proj1", "proj_res"),
                _layers("stage1.#", *QKTA, *MLP),
            ),
            (
                _layers("patch_embed2", "proj3", "proj4", "proj_res"),
                _layers("stage2.#", *QKTA, *MLP),
            ),
            (
                _layers("patch_embed3", "proj3", "proj4", "proj_res"),
                _layers("stage3.#", *LAST, *MLP),
            ),
        ),
        code={**QKFORMER, "model.stages": ["qkta", "qkta", None], "model.num_heads": 8},
        on={"cifar100": COLOURS_OF_CIFAR10},
        remark=LEAK,
    ),
    Original(
        name="QKFormer",
        source="zhouchenlin2096/QKFormer, cifar10-dvs/model.py and dvs128-gesture/model.py",
        preset="qkformer",
        stages=(
            (
                _layers("patch_embed1", "proj", "proj1", "proj2", "proj3", "proj_res"),
                _layers("stage1.#", *QKTA, *MLP),
            ),
            (
                _layers("patch_embed2", "proj", "proj4", "proj_res"),
                _layers("stage2.#", *LAST, *MLP),
            ),
        ),
        code={**QKFORMER, "model.stages": ["qkta", None], "model.num_heads": 16},
        remark=LEAK,
    ),
    Original(
        name="QKFormer",
        source="zhouchenlin2096/QKFormer, imagenet/qkformer.py",
        preset="qkformer",
        stages=(
            (
                _layers("patch_embed1", "proj", "proj1", "proj2", "proj_res"),
                _layers("stage1.#", *QKTA, *FC),
            ),
            (
                _layers("patch_embed2", "proj3", "proj4", "proj_res"),
                _layers("stage2.#", *QKTA, *FC),
            ),
            (
                _layers("patch_embed3", "proj3", "proj4", "proj_res"),
                _layers("stage3.#", *QKV, *FC),
            ),
        ),
        code={**QKFORMER, "model.stages": ["qkta", "qkta", None]},
        remark=LEAK,
    ),
)
