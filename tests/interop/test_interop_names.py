"""Names and shapes at full size, and what is said of those that do not fit."""

import re
import shlex
from pathlib import Path

import pytest
import reference_nets as nets
import torch
from mostly_slow import mostly_slow
from originals_small import CASES, names_of, original, ours
from torch import nn

from saformer.config.check import to_dict
from saformer.errors import CheckpointError
from saformer.interop.convert import convert
from saformer.training.module import SAFormerModule

# Parameters of the originals, with those that never act.
PUBLISHED = {
    ("spikformer_4_256", "cifar10"): 4_159_274,
    ("spikformer_4_256", "cifar100"): 4_182_404,
    ("spikformer_2_384", "cifar10"): 5_768_122,
    ("spikformer_2_384", "cifar100"): 5_802_772,
    ("spikformer_4_384", "cifar10"): 9_330_874,
    ("spikformer_4_384", "cifar100"): 9_365_524,
    ("spikformer_2_256_events", "cifar10_dvs"): 2_585_610,
    ("spikformer_8_384", "imagenet"): 16_828_312,
    ("spikformer_6_512", "imagenet"): 23_385_640,
    ("spikformer_8_512", "imagenet"): 29_705_768,
    ("spikformer_10_512", "imagenet"): 36_025_896,
    ("spikformer_8_768", "imagenet"): 66_363_208,
    ("spikingformer_4_256", "cifar10"): 4_156_202,
    ("spikingformer_4_256", "cifar100"): 4_179_332,
    ("spikingformer_2_384", "cifar10"): 5_765_818,
    ("spikingformer_2_384", "cifar100"): 5_800_468,
    ("spikingformer_4_384", "cifar10"): 9_326_266,
    ("spikingformer_4_384", "cifar100"): 9_360_916,
    ("spikingformer_2_256_events", "cifar10_dvs"): 2_568_714,
    ("spikingformer_2_256_events", "dvs128_gesture"): 2_568_971,
    ("spikingformer_8_384", "imagenet"): 16_828_312,
    ("spikingformer_8_512", "imagenet"): 29_705_768,
    ("spikingformer_8_768", "imagenet"): 66_363_208,
    ("sdt_2_256", "cifar10"): 2_567_082,
    ("sdt_2_256", "cifar100"): 2_590_212,
    ("sdt_2_512", "cifar10"): 10_233_546,
    ("sdt_2_512", "cifar100"): 10_279_716,
    ("sdt_2_256_events", "cifar10_dvs"): 2_566_794,
    ("sdt_2_256_events", "dvs128_gesture"): 2_567_051,
    ("sdt_8_384", "imagenet"): 16_816_536,
    ("sdt_6_512", "imagenet"): 23_373_736,
    ("sdt_8_512", "imagenet"): 29_689_896,
    ("sdt_10_512", "imagenet"): 36_006_056,
    ("sdt_8_768", "imagenet"): 66_339_144,
    ("qkformer_4_384", "cifar10"): 6_706_234,
    ("qkformer_4_384", "cifar100"): 6_740_884,
    ("qkformer_2_256_events", "cifar10_dvs"): 1_504_138,
    ("qkformer_2_256_events", "dvs128_gesture"): 1_999_371,
    ("qkformer_10_384", "imagenet"): 16_473_688,
    ("qkformer_10_512", "imagenet"): 29_079_336,
    ("qkformer_10_768", "imagenet"): 64_962_760,
}
NETS = {
    ("spikformer", "cifar"): (nets.SpikformerCifar, {}),
    ("spikformer", "events"): (nets.SpikformerEvents, {}),
    ("spikformer", "imagenet"): (nets.SpikformerImagenet, {}),
    ("spikingformer", "cifar"): (nets.Spikingformer, {}),
    ("spikingformer", "events"): (nets.Spikingformer, {"channels": 2, "names": "proj"}),
    ("spikingformer", "imagenet"): (nets.Spikingformer, {"names": "proj"}),
    ("sdt", "cifar"): (nets.SpikeDriven, {}),
    ("sdt", "events"): (nets.SpikeDriven, {"channels": 2}),
    ("sdt", "imagenet"): (nets.SpikeDriven, {}),
    ("qkformer", "cifar"): (nets.QKFormer, {"named": "cifar"}),
    ("qkformer", "events"): (nets.QKFormer, {"named": "events", "channels": 2}),
    ("qkformer", "imagenet"): (nets.QKFormer, {"named": "imagenet"}),
}
KINDS = {"cifar100": "cifar", "cifar10": "cifar", "imagenet": "imagenet"}
PAGE = (Path(__file__).parents[2] / "docs/interop.md").read_text()
ROWS = [shlex.split(words) for words in re.findall(r"\| `(model=[^|]*)` \|$", PAGE, re.MULTILINE)]


def documented(preset: str, dataset: str) -> list[str]:
    """The words of docs/interop.md for a model of the same family and the same dataset."""
    family = preset.partition("_")[0]
    (*_, words) = (
        row
        for row in ROWS
        if row[0].startswith(f"model={family}_")
        and f"dataset={dataset}" in row
        and "attention=ssa" not in row  # Spikformer's first model file
    )
    return [f"model={preset}", *words[1:]]


def count(tensors) -> int:
    return sum(tensor.numel() for tensor in tensors)


@pytest.mark.parametrize(("preset", "dataset"), mostly_slow(PUBLISHED, names=2))
def test_published_networks_convert_without_rest(compose, monkeypatch, preset, dataset):
    """The original has its published count to the digit, and each tensor a place or a reason."""
    for draw in ("kaiming_uniform_", "trunc_normal_"):  # names need no weights
        monkeypatch.setattr(nn.init, draw, lambda weight, *_args, **_kwargs: weight)
    family, depth, dim, *_ = preset.split("_")
    config = compose(*documented(preset, dataset))
    build, others = NETS[family, KINDS.get(dataset, "events")]
    sizes = (int(dim), int(depth), config.model.num_heads, config.dataset.num_classes)
    with torch.device("meta"):
        weights = build(*sizes, ratio=int(config.model.mlp_ratio), **others).state_dict()
        parameters = build(*sizes, ratio=int(config.model.mlp_ratio), **others).parameters()
    assert count(parameters) == PUBLISHED[preset, dataset]
    module = SAFormerModule(config, to_dict(config))
    converted = convert(weights, module)
    assert converted.state_dict.keys() == module.state_dict().keys()
    left_out = count(weights[name] for name in converted.left_out)
    assert count(module.parameters()) + left_out == PUBLISHED[preset, dataset]


def test_every_row_of_the_page_was_tried(compose):
    """No words of docs/interop.md are without a network that converted with them."""
    tried = [documented(f"{preset.partition('_')[0]}_x", data) for preset, data in PUBLISHED]
    (left,) = (row for row in ROWS if row[1:] not in [words[1:] for words in tried])
    assert left == ["model=spikformer_4_384", "attention=ssa", "dataset=cifar10"]
    with torch.device("meta"):
        weights = nets.SpikformerFirst(384, 4, 12, 10).state_dict()
    convert(weights, ours(compose, *left))


def refused(compose, name: str, weights: dict, *changes: str) -> str:
    """What is said of weights that do not fit the settings of a case, or changed ones."""
    with pytest.raises(CheckpointError) as error:
        convert(weights, ours(compose, *CASES[name].overrides, *changes))
    return str(error.value)


def test_everything_that_does_not_fit_is_said_at_once(compose):
    """Another width: both names and both shapes of every tensor, in one message."""
    name = "spikingformer cifar10"
    weights = names_of(name)
    first, *lines, last = refused(compose, name, weights, "model.dim=128").splitlines()
    assert first == (
        "Spikingformer (zhouchenlin2096/Spikingformer, cifar10/model.py and cifar100/model.py) of "
        "model.dim=64 model.depth=2 dataset.in_channels=3 dataset.num_classes=10 does not fit "
        "spikingformer_4_384 on cifar10:"
    )
    assert last == "Its sizes are not those of these settings: type model.dim=64"
    line = (
        "  block.1.attn.q_conv.weight is (64, 64, 1): "
        "backbone.blocks.1.attn.q.0.conv.weight is (128, 128, 1, 1)"
    )
    assert line in lines
    assert "  block.0.norm2.bias is (64,): by these settings it would be (128,)" in lines
    fits = {"head.bias", *(key for key in weights if key.endswith("num_batches_tracked"))}
    assert {line.split()[0] for line in lines} == weights.keys() - fits


def test_missing_and_unknown_names_are_errors(compose):
    """A tensor that is not there and one that nobody knows are named, with their shapes."""
    name = "qkformer cifar10"
    weights = names_of(name)
    del weights["stage3.1.ssa.v_bn.running_var"]
    weights["stage1.0.tssa.attn_lif.w"] = torch.zeros(())
    _, *lines = refused(compose, name, weights).splitlines()
    assert lines == [
        "  stage1.0.tssa.attn_lif.w () has no place here",
        "  stage3.1.ssa.v_bn.running_var is missing: "
        "backbone.blocks.5.attn.v.0.bn.running_var is (64,)",
    ]


def test_another_depth_is_said(compose):
    """Blocks too many or too few are listed, and the depth to type comes last."""
    name = "sdt imagenet"
    message = refused(compose, name, names_of(name), "model.depth=3")
    assert message.endswith(": type model.depth=2")
    assert "  block.2.mlp.fc2_conv.bias is missing: " in message
    message = refused(compose, name, names_of(name), "model.depth=1")
    assert "  block.1.mlp.fc2_conv.bias (64,) has no place here" in message


def test_heads_show_where_the_original_has_them(compose):
    """Spike-driven Transformer's unused mixer of heads tells how many there are."""
    message = refused(compose, "sdt cifar10", names_of("sdt cifar10"), "model.num_heads=4")
    assert message.splitlines()[1:] == [
        f"  block.{i}.attn.talking_heads.weight is (8, 8, 1): by these settings it would be "
        "(4, 4, 1)"
        for i in (0, 1)
    ]


@pytest.mark.slow
def test_another_network_is_refused(compose):
    """Weights of one file are never taken for the network of another."""
    for name, case in CASES.items():
        weights = names_of(name)
        for other, settings in CASES.items():
            if (case.net, case.sizes) != (settings.net, settings.sizes):
                message = refused(compose, other, weights)
                assert message.startswith(FAMILIES[name.split()[0]]), (name, other)


FAMILIES = {
    "spikformer": "Spikformer (ZK-Zhou/spikformer, ",
    "spikingformer": "Spikingformer (zhouchenlin2096/Spikingformer, ",
    "sdt": "Spike-driven Transformer (BICLab/Spike-Driven-Transformer, ",
    "qkformer": "QKFormer (zhouchenlin2096/QKFormer, ",
}


@pytest.mark.parametrize(
    ("name", "change", "answer"),
    [
        (
            "spikformer cifar10",
            "model=spikingformer_4_384",
            ": its models are spikformer_10_512, spikf",
        ),
        ("spikformer cifar10", "attention=ssa", "type attention.qkv_bias=true"),
        ("spikformer cifar10dvs", "attention=ssa", "type attention.scale=0.25"),
        ("spikingformer cifar10-dvs", "neuron.tau=2", "type neuron.tau=1.5"),
        ("spikingformer cifar100", "model.num_heads=4", "type model.num_heads=8"),
        (
            "spikingformer cifar100",
            "dataset.mean=[0,0,0]",
            "was made with dataset.mean=[0.4914,0.4822,0.4465], not dataset.mean=[0.0,0.0,0.0]: "
            "type dataset.mean=[0.4914,0.4822,0.4465]",
        ),
        ("sdt cifar10-dvs", "attention=sdsa", "type attention.erode=true"),
        ("sdt gesture", "attention=sdsa_erode", "type attention.erode=false"),
        ("sdt cifar10-dvs", "dataset.events.resize=bin", "type dataset.events.resize=bilinear"),
        ("qkformer cifar10", "model.num_heads=4", "type model.num_heads=8"),
        ("qkformer imagenet", "neuron=lif_snntorch", "neuron.fire=ge"),
    ],
)
def test_settings_that_weights_do_not_show_are_checked(compose, name, change, answer):
    """A setting that is not that of the original's code is refused with the word to type."""
    message = refused(compose, name, names_of(name), change)
    assert answer in message and "\n" not in message


@pytest.mark.parametrize(
    ("build", "sizes", "preset"),
    [
        (nets.SpikformerCifar, (384, 2, 12, 100), "spikformer_2_384"),
        (nets.SpikeDriven, (256, 2, 8, 11), "sdt_2_256"),
        (nets.QKFormer, (384, 4, 8, 10), "qkformer_4_384"),
        (nets.SpikformerEvents, (256, 2, 16, 10), "spikformer_2_256_events"),
    ],
)
def test_the_preset_is_named(compose, build, sizes, preset):
    """Without model= the answer names the preset of the file's size."""
    with torch.device("meta"):
        weights = build(*sizes).state_dict()
    with pytest.raises(CheckpointError) as error:
        convert(weights, ours(compose, "dataset=cifar10"))
    channels = 2 if preset.endswith("events") else 3
    what = f"model.dim={sizes[0]} model.depth={sizes[1]} dataset.in_channels={channels}"
    assert what in str(error.value)
    assert str(error.value).endswith(f"is another network than saformer_tiny: type model={preset}")


def test_weights_of_something_else_are_refused(compose):
    """Names that no original has are said to be so."""
    weights = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).state_dict()
    assert refused(compose, "sdt cifar10", weights) == (
        "its tensors (0.weight, 0.bias, 1.weight, ...) have the names of none of Spikformer, "
        "Spikingformer, Spike-driven Transformer, QKFormer"
    )


def test_nothing_is_changed(compose):
    """Converting leaves the module and the weights as they were."""
    name = "spikformer cifar10"
    weights, module = dict(original(name).state_dict()), ours(compose, *CASES[name].overrides)
    before = {key: tensor.clone() for key, tensor in (weights | module.state_dict()).items()}
    converted = convert(weights, module)
    assert all(torch.equal(before[k], t) for k, t in (weights | module.state_dict()).items())
    assert not re.search("norm", " ".join(converted.state_dict))
