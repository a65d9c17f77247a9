"""Rivals and controls keep the promises of the backbone, and compute what docs/model.md says."""

import pytest
import torch
import torch.nn.functional as F
from lively import filled, images, lively, step_by_step
from mostly_slow import mostly_slow
from torch import nn

from saformer import energy
from saformer.energy.table import Kind
from saformer.models.attention.settings import AttentionConfig, AttentionName
from saformer.models.layers import ConvBN
from saformer.models.spike_ops import SpikeMatMul

PROJECTED = ["ssa", "ssa_kv_first", "sdsa", "sdsa_erode", "qkta", "qkca", "random"]
CONTROLS = ["identity", "pooling", "dwconv"]
NO_DWC = "model.dwc.place=none"
MEMBRANE = [
    *((f"attention={name}", NO_DWC) for name in [*PROJECTED, *CONTROLS]),
    *((f"attention={name}", "model.dwc.place=parallel") for name in PROJECTED),
    *((f"attention={name}", "model.dwc.place=series") for name in PROJECTED),
    *((f"attention={name}", "model.dwc.place=mlp") for name in CONTROLS),
    ("attention=ssa_bias", NO_DWC),
    ("model.stem=spikingformer",),
    ("model.stem=spikingformer", "model.stem_depth=2"),
]
SEW = [
    *(
        (f"attention={name}", NO_DWC, "model.residual=sew", "model.head_lif=false")
        for name in [*PROJECTED, *CONTROLS]
    ),
    *(
        (f"model={model}", "model.dim=64", "model.num_heads=4", "dataset.image_size=32", *others)
        for model, *others in (  # few tokens give small products, which the usual scale would drown
            ("qkformer_4_384", "attention.scale=1"),
            ("qkformer_10_384", "attention.scale=1"),
            ("qkformer_2_256_events", "attention.scale=1"),
            ("qkformer_4_384", "attention=sasa"),
        )
    ),
]
ALL = [*MEMBRANE, *SEW]
each = pytest.mark.parametrize("overrides", mostly_slow(ALL, 3), ids=" ".join)


def side(overrides: tuple[str, ...]) -> int:
    return 32 if "dataset.image_size=32" in overrides else 8


@each
def test_every_parameter_is_trained(backbone, overrides):
    """After one backward pass no parameter is without a finite gradient."""
    model = lively(backbone(*overrides), side(overrides))
    model(images(size=side(overrides))).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@each
def test_logits_do_not_depend_on_batch_mates(backbone, overrides):
    """In evaluation an image gets the same logits alone, in company, and in any order."""
    model = lively(backbone(*overrides), side(overrides)).eval()
    x, order = images(6, side(overrides)), torch.tensor([3, 1, 5, 0, 4, 2])
    with torch.no_grad():
        together, shuffled = model(x), model(x[order])
        alone = torch.cat([model(one[None]) for one in x], dim=1)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(together[:, order], shuffled, rtol=1e-5, atol=1e-5)
    assert not torch.equal(together[:, 0], together[:, 1])


@each
def test_no_state_is_left_behind(backbone, overrides):
    """After a forward pass every membrane is empty, and a second pass gives the same."""
    loop = "neuron.backend=loop"  # the only one with a membrane
    model = lively(backbone(*overrides, loop), side(overrides)).eval()
    x = images(size=side(overrides))
    with torch.no_grad():
        first, second = model(x), step_by_step(model)(x)
    assert torch.equal(first, second)
    assert filled(model) == []


@each
def test_one_timestep_is_enough(backbone, overrides):
    """With T = 1 a network gives one finite vector of logits for every image."""
    model = backbone(*overrides, timesteps=1)
    logits = model(images(size=side(overrides)))
    assert logits.shape == (1, 4, 10)
    assert torch.isfinite(logits).all()


@each
def test_layers_see_what_the_residual_promises(backbone, overrides):
    """Behind the first layer inputs are zeros and ones, or, where spikes are added, integers."""
    model = lively(backbone(*overrides), side(overrides))
    seen: dict[str, torch.Tensor] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_pre_hook(
                lambda _m, args, name=name: seen.__setitem__(name, args[0].detach())
            )
    model(images(size=side(overrides)))
    first, *others = seen
    assert first in ("stem.stages.0.conv", "stem.before.0.0.conv", "stem.main.0.0.conv")
    for name in others:
        x = seen[name]
        assert x.any(), f"{name} never saw a spike, so this test would prove nothing"
        assert torch.equal(x, x.round()) and (x >= 0).all(), name
        assert overrides in SEW or x.max() == 1, name


@each
def test_energy_is_counted(backbone, overrides):
    """The counter finds every product, mask and sum of an attention, and spikes meet in each."""
    model = lively(backbone(*overrides, timesteps=2), side(overrides)).eval()
    table = energy.count(model, images(2, side(overrides)))
    option = next((o for o in overrides if o.startswith("attention=")), "attention=").split("=")[1]
    products = table.of(Kind.matmul)
    if option.startswith(("ssa", "random")):
        assert [layer.name.rpartition(".")[2] for layer in products] == ["first", "second"]
    for layer in [*products, *table.of(Kind.mask, Kind.sum)]:
        assert layer.ops > 0, layer.name
    if option in CONTROLS:
        assert not [*products, *table.of(Kind.mask, Kind.sum)]


def branch_of(backbone, *overrides: str) -> tuple[nn.Module, torch.Tensor]:
    """The attention of a tiny network, and spikes [T, B, D, H, W] for it, D 64, H and W 4."""
    branch = backbone(*overrides, NO_DWC).blocks[0].attn
    generator = torch.Generator().manual_seed(2)
    return branch, (torch.rand(3, 2, 64, 4, 4, generator=generator) < 0.3).float()


def projected(branch: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Query, key and value as [T, B, h, N, d], lively."""
    for projection in (branch.q, branch.k, branch.v):
        projection[0].bn.weight.data.fill_(2.5)
    rows = [p(x).flatten(3).unflatten(2, (4, 16)).mT for p in (branch.q, branch.k, branch.v)]
    assert all(row.any() for row in rows)
    return rows


@pytest.mark.parametrize("option", ["ssa", "ssa_kv_first", "ssa_quarter", "random"])
def test_ssa_is_the_product_of_the_paper(backbone, option):
    """What SSA attends to is SN(s (Q K^T) V) for every head, in either order of products."""
    branch, x = branch_of(backbone, f"attention={option}")
    with torch.no_grad():
        q, k, v = projected(branch, x)
        scale = 0.25 if option == "ssa_quarter" else 0.125
        expected = branch.lif_product((q @ k.mT @ v).mT.flatten(2, 3) * scale)
        found, _ = branch.attend(x)
    assert 0 < expected.mean() < 1
    assert torch.equal(found.flatten(3), expected)


def test_both_orders_of_ssa_learn_the_same(backbone):
    """The order of SSA's products changes neither logits nor gradients."""
    logits, gradients = [], []
    for order in ("qk_first", "kv_first"):
        model = lively(backbone("attention=ssa", f"attention.order={order}", NO_DWC))
        logits.append(model(images()))
        logits[-1].square().mean().backward()
        gradients.append([p.grad for p in model.parameters()])
    assert torch.equal(*logits)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("erode", [False, True])
def test_sdsa_gates_the_query(backbone, erode):
    """SDSA is Q * SN(sum of K * V over tokens), its pools as the authors' code lays them out."""
    branch, x = branch_of(backbone, "attention=sdsa", f"attention.erode={erode}")

    def pooled(spikes: torch.Tensor) -> torch.Tensor:  # their module, which pools a 5-D tensor
        return F.max_pool3d(spikes, (1, 3, 3), stride=1, padding=(0, 1, 1)) if erode else spikes

    def rows(spikes: torch.Tensor) -> torch.Tensor:  # as theirs: [T, B, h, N, d]
        return spikes.flatten(3).mT.unflatten(3, (4, 16)).transpose(2, 3)

    with torch.no_grad():
        projected(branch, x)
        q, k, v = rows(branch.q(x)), rows(pooled(branch.k(x))), rows(pooled(branch.v(x)))
        mask = branch.mask.lif(pooled(k * v).sum(3, keepdim=True))
        expected = pooled(q * mask).transpose(3, 4).reshape(x.shape)
        found, _ = branch.attend(x)
    assert 0 < expected.mean() < 1
    assert torch.equal(found, expected)


@pytest.mark.parametrize(("option", "axis"), [("qkta", 3), ("qkca", 4)])
def test_qk_attention_masks_the_key(backbone, option, axis):
    """QKTA and QKCA gate k by a mask from q, summed over the channels of a head or over tokens."""
    branch, x = branch_of(backbone, f"attention={option}")
    with torch.no_grad():
        q, k = (p(x).flatten(3).unflatten(2, (4, 16)) for p in (branch.q, branch.k))
        mask = branch.masks[0].lif(q.sum(axis, keepdim=True))
        found, _ = branch.attend(x)
    assert torch.equal(found.flatten(3), (mask * k).flatten(2, 3))


def test_random_attention_never_learns_its_weights(backbone):
    """Query and key of the random control are in the checkpoint, but no parameters."""
    model = backbone("attention=random", NO_DWC)
    trained, saved = dict(model.named_parameters()), model.state_dict()
    for name in ("q", "k"):
        weight = f"blocks.0.attn.{name}.0.conv.weight"
        assert weight in saved and weight not in trained
        assert saved[weight].std() > 0
    assert "blocks.0.attn.v.0.conv.weight" in trained
    again = backbone("attention=random", NO_DWC, "seed=0").state_dict()
    assert all(torch.equal(saved[name], again[name]) for name in saved)


def test_pooling_is_the_average_of_the_neighbours(backbone):
    """The pooling control is an average pooling of spikes, and has no weights but BatchNorm's."""
    branch, x = branch_of(backbone, "attention=pooling")
    assert [name for name, _ in branch.named_parameters()] == ["1.bn.weight", "1.bn.bias"]
    (mixer,) = (layer for layer in branch if isinstance(layer, ConvBN))
    torch.testing.assert_close(mixer.conv(x.flatten(0, 1)), F.avg_pool2d(x.flatten(0, 1), 3, 1, 1))


def test_without_attention_a_block_is_its_mlp(backbone):
    """The identity control leaves nothing of the attention in a block."""
    model = lively(backbone("attention=identity", NO_DWC))
    (block,) = model.blocks
    names = {name.partition(".")[0] for name, _ in block.named_parameters()}
    x = torch.randn(2, 3, 64, 4, 4)
    assert names == {"mlp"}
    assert torch.equal(block(x), x + block.mlp(x))


def test_qkformers_leak_comes_only_when_asked_for(backbone):
    """With attention.batch_leak an image's logits depend on its batch mates; never without."""
    tiny = ("model=qkformer_4_384", "model.dim=64", "dataset.image_size=16")
    x = images(4, 16)
    for leak in (False, True):
        model = lively(backbone(*tiny, f"attention.batch_leak={leak}"), 16).eval()
        with torch.no_grad():
            together, alone = model(x), torch.cat([model(one[None]) for one in x], dim=1)
        assert torch.allclose(together, alone, atol=1e-5) != leak


def test_a_stage_of_a_hierarchy_widens_and_pools(backbone):
    """QKFormer's stages give 96, 192 and 384 channels on 32, 16 and 8 pixels."""
    model = backbone("model=qkformer_4_384", "dataset.image_size=32", "timesteps=1")
    shapes = []
    for layer in [model.stem, *model.blocks]:
        layer.register_forward_hook(lambda _m, _args, out: shapes.append(tuple(out.shape[2:])))
    with torch.no_grad():
        model(images(1, 32))
    stages = [(96, 32, 32)] * 2 + [(192, 16, 16)] * 2 + [(384, 8, 8)] * 3
    assert shapes == stages
    products = [m for m in model.modules() if isinstance(m, SpikeMatMul)]
    assert len(products) == 4  # two blocks of SSA in the last stage, and in no other


def test_a_rival_brings_its_attention(compose, tmp_path):
    """model= sets the attention too, also inside an experiment; what is typed wins."""

    def attention(*overrides: str) -> AttentionConfig:
        return compose(*overrides).attention

    assert attention("model=spikformer_4_384").qkv_bias
    assert attention("model=spikformer_2_256_events").scale == 0.25
    assert attention("model=sdt_8_768").name is AttentionName.sdsa
    assert attention("model=saformer_4_384").name is AttentionName.sasa
    for typed in (("attention=qkta", "model=sdt_2_256"), ("model=sdt_2_256", "attention=qkta")):
        assert attention(*typed).name is AttentionName.qkta
    recipe = "# @package _global_\ndefaults:\n  - override /model: spikingformer_4_384\n"
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(recipe)
    mine = (f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine")
    assert compose(*mine).model.name == "spikingformer_4_384"
    assert attention(*mine).name is AttentionName.ssa
    assert attention(*mine, "attention=random").name is AttentionName.random


STAGE = "{divide: 1, depth: 1, attention: qkta, embed: [1], pool: [true], skip_from: 0}"


@pytest.mark.parametrize(
    ("overrides", "answer"),
    [
        (
            ("attention=identity",),
            "model.dwc.place must be none or mlp with attention.name=identity, not parallel",
        ),
        (
            ("attention=pooling", "model.dwc.place=series"),
            "model.dwc.place must be none or mlp with attention.name=pooling, not series",
        ),
        (
            ("attention=ssa", "attention.weights=q"),
            "attention.weights must stay qk with attention.name=ssa, which does not read it, not q",
        ),
        (
            ("attention.scale=0.25",),
            "attention.scale must stay 0.125 with attention.name=sasa, which does not read it",
        ),
        (
            ("attention=ssa", "attention.batch_leak=true"),
            "attention.batch_leak must be false with model.residual=membrane",
        ),
        (
            ("model.stem=spikingformer", "model.residual=sew"),
            "model.residual must be membrane with model.stem=spikingformer",
        ),
        (
            ("model.patch_size=8", "model.stem_depth=2"),
            "model.stem_depth must be at least 3 for model.patch_size=8, not 2",
        ),
        (("model.stem_depth=5",), "model.stem_depth must be 1 to 4, not 5"),
        (
            ("model=qkformer_4_384", "model.depth=6"),
            "model.depth must be 4, the sum of the depths in model.stages, not 6",
        ),
        (
            ("model=qkformer_4_384", "model.patch_size=8"),
            "model.patch_size must be 4, the stride of model.stages, not 8",
        ),
        (
            ("model=qkformer_4_384", "model.residual=membrane"),
            "model.residual must be sew with model.stages",
        ),
        (
            ("model=qkformer_4_384", "model.dim=72"),
            "model.dim must be divisible by 32 for the widths of model.stages, not 72",
        ),
        (
            (f"model.stages=[{STAGE.replace('[true]', '[true, false]')}]",),
            "model.stages must have as many values in pool as in embed in every stage",
        ),
        (
            (f"model.stages=[{STAGE.replace('from: 0', 'from: 1')}]",),
            "model.stages must have a skip_from below the number of values in embed, not 1",
        ),
    ],
)
def test_nonsense_is_refused_in_one_line(backbone, overrides, answer):
    """A combination that makes no sense is a SettingError that names setting, rule and value."""
    from saformer.errors import SettingError

    with pytest.raises(SettingError) as refused:
        backbone(*overrides)
    assert str(refused.value).startswith(answer)
    assert "\n" not in str(refused.value)
