"""Numbers that others published come out again, digit by digit, from shapes and firing rates.

Networks are built from their geometry (channels, map sizes, tokens, heads, T) and the rates that
were published with them; what is asserted is what the source printed. Where a published number is
not what it is called, the test says what it is. All counts are of one image unless a test says
otherwise, and spikes are spread evenly: no source tells where on a map they fall.
"""

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from saformer.energy.conventions import (
    EXACT,
    SPIKFORMER_PAPER,
    SPIKINGFORMER_SCRIPT,
    Convention,
    Static,
    apply,
)
from saformer.energy.costs import cost_model, millijoules
from saformer.energy.table import Kind, Layer, LayerTable, Values

DATA = Path(__file__).parent / "data"
DIGITS = 1e-11  # relative; eleven digits are all that the sources print


def weighted(
    name: str,
    c_in: int,
    c_out: int,
    size: int,
    *,
    k: int = 1,
    rate: float = 1.0,
    T: int = 4,
    bias: bool = False,
    **settings,
) -> Layer:
    """A convolution of k x k taps with padding, or with k = 1 a linear layer on size^2 tokens."""
    padded = T * c_in * c_out * (k * size) ** 2
    inside = T * c_in * c_out * (k * size - 2 * (k // 2)) ** 2 if k > 1 else padded
    inputs = T * c_in * size**2
    return Layer(
        **{"values": Values.binary, "kind": Kind.conv if k > 1 else Kind.linear} | settings,
        name=name,
        samples=1,
        timesteps=T,
        inputs=inputs,
        nonzero=rate * inputs,
        value_sum=rate * inputs,
        outputs=T * c_out * size**2,
        dense=inside,
        dense_padded=padded,
        bias_adds=T * c_out * size**2 if bias else 0,
        weights=c_in * c_out * k * k,
        ops=rate * inside,
        ops_by_value=rate * inside,
    )


def image(name: str, c_out: int, size: int, T: int = 4) -> Layer:
    """A 3 x 3 convolution on the three colours of an image that is shown T times."""
    return weighted(name, 3, c_out, size, k=3, T=T, values=Values.real, static=True)


def head(c_in: int, classes: int) -> Layer:
    """Classification of a mean over timesteps and tokens."""
    return weighted("head", c_in, classes, 1, T=1, bias=True, values=Values.real, last=True)


def ssa(name: str, rates: list[float], N: int, D: int, h: int, tokens: int = 0) -> list[Layer]:
    """The products k^T v and q (k^T v) of h heads on N tokens, for rates of q, k and v.

    An entry of k^T v is not zero if k and v meet in one of the tokens; how many do is not
    published, and estimated as if they fired independently.
    """
    q, k, v = rates
    T, d = 4, D // h
    dense = T * h * N * d * d
    met = 1 - (1 - k * v) ** (tokens or N)
    common = dict(kind=Kind.matmul, samples=1, timesteps=T, dense=dense, dense_padded=dense)
    left, right = T * h * N * d * k * d, T * h * N * d * v * d
    first = dict(values=Values.binary, ops_left=left, ops_right=right, ops=dense * k * v)
    left, right = T * h * N * d * q * d, T * h * d * d * met * N
    of_q = dict(values=Values.integer, operands=(Values.binary, Values.integer))
    then = of_q | dict(ops_left=left, ops_right=right, ops=dense * q * met)
    return [
        Layer(name=f"{name}.kv", **common, **first),
        Layer(name=f"{name}.qkv", **common, **then),
    ]


def arithmetic(parts: list[Layer], convention: Convention) -> tuple[float, float, float]:
    """Accumulates, multiply-accumulates, and mJ of FP32 arithmetic in 45 nm."""
    counted = apply(LayerTable(parts), convention)
    energy = cost_model("horowitz45").cost(counted).snn_pJ
    return counted.acs, counted.macs, millijoules(energy)


# ---- Spikingformer-8-512 on ImageNet: the log in the authors' repository ----


@pytest.fixture(scope="module")
def log() -> dict:
    """Operations and rates that the script printed, layer by layer, over all four timesteps."""
    return json.loads((DATA / "spikingformer_8_512_imagenet_rates.json").read_text())


@pytest.fixture
def spikingformer(log: dict) -> list[Layer]:
    """Spikingformer-8-512: geometry from its architecture, mean rates of inputs from the log."""
    rate = {name: layer["ac"] / layer["dense"] for name, layer in log["layers"].items()}
    D, grid, h = 512, 14, 8

    def conv(name: str, c_in: int, c_out: int, size: int) -> Layer:
        name = f"patch_embed.{name}"
        return weighted(name, c_in, c_out, size, k=3, rate=rate[name])

    def point(name: str, c_in: int, c_out: int, bias: bool = True) -> Layer:
        return weighted(name, c_in, c_out, grid, bias=bias, rate=rate[name])

    parts = [
        image("patch_embed.proj_conv", D // 8, 224),
        conv("proj_conv1", D // 8, D // 4, 112),
        conv("proj_conv2", D // 4, D // 2, 56),
        conv("proj_conv3", D // 2, D, 28),
        conv("rpe_conv", D, D, grid),
    ]
    for i, rates in enumerate(log["fr"]):
        block = f"block[{i}]"
        parts += [point(f"{block}.attn.{x}_conv", D, D, bias=False) for x in "qkv"]
        parts += ssa(f"{block}.attn", rates, grid**2, D, h)
        parts += [
            point(f"{block}.attn.proj_conv", D, D),
            point(f"{block}.mlp.fc1_conv", D, 4 * D),
            point(f"{block}.mlp.fc2_conv", 4 * D, D),
        ]
    return [*parts, head(D, 1000)]


def test_the_log_is_of_this_architecture(log, spikingformer):
    """FLOPs and biases of every layer, from its geometry, are the operations in the log."""
    of_weights = {
        one.name: one.dense_padded + one.bias_adds
        for one in spikingformer
        if one.kind is not Kind.matmul
    }
    assert of_weights == {name: layer["dense"] for name, layer in log["layers"].items()}


def test_spikingformer_8_512_to_all_digits(spikingformer):
    """The script's 6.51754094076 G AC, 0.347329512 G MAC and 7.463502601886 mJ."""
    acs, macs, energy = arithmetic(spikingformer, SPIKINGFORMER_SCRIPT)
    assert acs / 1e9 == pytest.approx(6.51754094076, rel=DIGITS)
    assert macs / 1e9 == pytest.approx(0.347329512, rel=DIGITS)
    assert energy == pytest.approx(7.463502601886, rel=DIGITS)


def test_charging_the_image_once_takes_a_sixth_off(spikingformer):
    """One field replaced, once for per_step: 6.267 mJ of the same run."""
    once = replace(SPIKINGFORMER_SCRIPT, static=Static.once)
    assert arithmetic(spikingformer, once)[2] == pytest.approx(6.267, abs=5e-4)


def test_attention_follows_the_rule_of_the_script(log, spikingformer):
    """T h N d^2 (min(fr_k, fr_v) + fr_q), block by block; it is 0.43 % of all accumulates."""
    T, h, N, d = 4, 8, 14**2, 64
    products = defaultdict(float)
    counted = apply(LayerTable(spikingformer), SPIKINGFORMER_SCRIPT)
    for row in counted.rows:
        if row.kind is Kind.matmul:
            products[row.name.split(".")[0]] += row.acs
    for i, (q, k, v) in enumerate(log["fr"]):
        assert products[f"block[{i}]"] == pytest.approx(T * h * N * d * d * (min(k, v) + q))
    assert len(products) == 8
    assert sum(products.values()) / counted.acs == pytest.approx(0.0043, abs=5e-5)


def test_where_the_accumulates_are(spikingformer):
    """Stem 2.247 G, q, k and v 1.581, projection 0.369, MLP 2.169 + 0.124, products 0.028."""
    stages = {f"{x}_conv": "qkv" for x in "qkv"} | {"kv": "products", "qkv": "products"}
    giga = defaultdict(float)
    for row in apply(LayerTable(spikingformer), SPIKINGFORMER_SCRIPT).rows:
        part, _, leaf = row.name.rpartition(".")
        giga["stem" if part == "patch_embed" else stages.get(leaf, leaf)] += row.acs / 1e9
    expected = {"stem": 2.247, "qkv": 1.581, "products": 0.028, "proj_conv": 0.369}
    expected |= {"fc1_conv": 2.169, "fc2_conv": 0.124, "head": 0}
    assert giga == {stage: pytest.approx(acs, abs=5e-4) for stage, acs in expected.items()}


def test_padding_is_one_percent_on_large_maps(spikingformer):
    """Taps beyond the border of the stem's maps are 1.07 % of all accumulates."""
    padded = apply(LayerTable(spikingformer), SPIKINGFORMER_SCRIPT)
    taps = replace(SPIKINGFORMER_SCRIPT, taps=EXACT.taps)
    inside = apply(LayerTable(spikingformer), taps)
    assert 1 - inside.acs / padded.acs == pytest.approx(0.0107, abs=5e-5)
    assert inside.macs < padded.macs


# ---- Spikformer-4-384 on CIFAR-10: issue 23 of the Spikformer repository ----

RATES_OF_ISSUE_23 = [  # of q, k and v in each block, as printed in the issue
    [0.14379521053803118, 0.10392173096726212, 0.08082685798783845],
    [0.09622804452724094, 0.079531397717663, 0.07723161116053787],
    [0.0788185744534565, 0.07352738761449162, 0.0678107915799829],
    [0.0876925362250473, 0.08682637812593315, 0.06879291607986522],
]
ACS_OF_ISSUE_23 = 0.2458512465306023e9
MJ_OF_ISSUE_23 = 0.24570254547754208


def stem_of_4_384(rate: float = 1.0) -> list[Layer]:
    """The image, three convolutions and the position embedding of Spikformer-4-384 on 32 x 32."""
    sizes = [(48, 96, 32), (96, 192, 32), (192, 384, 16), (384, 384, 8)]
    rest = [weighted(f"stem.{i}", *size, k=3, rate=rate) for i, size in enumerate(sizes, 1)]
    return [image("stem.0", 48, 32), *rest]


def attention_of_4_384(tokens: int) -> list[Layer]:
    """Its products as the script counts them on so many tokens; the network itself has 64."""
    return [
        one
        for i, rates in enumerate(RATES_OF_ISSUE_23)
        for one in ssa(f"block.{i}", rates, tokens, 384, 12, tokens=64)
    ]


def blocks_of_4_384(rate: float = 1.0) -> list[Layer]:
    """q, k, v, projection and MLP of its four blocks on 8 x 8 tokens."""
    widths = dict(q=(384, 384), k=(384, 384), v=(384, 384), proj=(384, 384))
    widths |= dict(fc1=(384, 1536), fc2=(1536, 384))
    return [
        weighted(f"block.{i}.{name}", *width, 8, rate=rate)
        for i in range(4)
        for name, width in widths.items()
    ]


def test_issue_23_is_stem_attention_on_16_tokens_and_head():
    """0.2457 mJ is what is left of Spikformer-4-384 without any linear layer of its blocks.

    The rates of the stem's convolutions were not printed. What the published accumulates leave for
    them, after attention on the 16 tokens of the script's settings, is one rate of 13.1 %.
    """
    T, h, d = 4, 12, 32
    on_16_tokens = T * h * 16 * d * d * sum(min(k, v) + q for q, k, v in RATES_OF_ISSUE_23)
    assert on_16_tokens == pytest.approx(0.551e6, rel=1e-3)
    stem_flops = T * 9 * (48 * 96 * 32**2 + 96 * 192 * 32**2 + 192 * 384 * 16**2 + 384**2 * 8**2)
    rate = (ACS_OF_ISSUE_23 - on_16_tokens) / stem_flops
    assert rate == pytest.approx(0.131, abs=5e-4)

    reported = [*stem_of_4_384(rate), *attention_of_4_384(16), head(384, 10)]
    acs, macs, energy = arithmetic(reported, SPIKINGFORMER_SCRIPT)
    assert acs == pytest.approx(ACS_OF_ISSUE_23, rel=DIGITS)
    assert macs == 5312266 == 4 * (3 * 48 * 9 * 32**2) + 384 * 10 + 10
    assert energy == pytest.approx(MJ_OF_ISSUE_23, rel=DIGITS)

    whole = [*reported[:-1], *blocks_of_4_384(rate), head(384, 10)]
    assert arithmetic(whole, SPIKINGFORMER_SCRIPT)[2] > 1.8 * MJ_OF_ISSUE_23


def test_issue_23_omits_half_of_the_dense_work():
    """Block layers are 1.812 of 3.686 GMAC over four timesteps, products of attention aside."""
    counted = apply(
        LayerTable([*stem_of_4_384(), *blocks_of_4_384(), head(384, 10)]), SPIKINGFORMER_SCRIPT
    )
    dense = {row.name: row.dense * row.steps / 1e9 for row in counted.rows}
    omitted = sum(work for name, work in dense.items() if name.startswith("block"))
    assert omitted == pytest.approx(1.812, abs=5e-4)
    assert sum(dense.values()) == pytest.approx(3.686, abs=5e-4)


def test_issue_23_has_a_quarter_of_the_tokens():
    """A token grid of 4 was typed where the network's is 8: 0.551 M for 2.206 M accumulates."""
    few, all_ = (arithmetic(attention_of_4_384(N), SPIKINGFORMER_SCRIPT)[0] for N in (16, 64))
    assert few == pytest.approx(0.551e6, abs=5e2)
    assert all_ == pytest.approx(2.206e6, abs=5e2)


def test_an_ann_of_the_shape_of_spikformer_4_384():
    """Stem 468.5 MMAC, blocks 113.2 each, products 3.1 each: 934 MMAC, 4.30 mJ, 0.215 in INT8."""
    parts = [*stem_of_4_384(), *blocks_of_4_384(), *attention_of_4_384(64), head(384, 10)]
    # Spikformer on CIFAR multiplies (q k^T) v: N^2 D each, where k^T v and q (k^T v) are N D d.
    products = [
        replace(one, dense=4 * 64**2 * 384, dense_padded=4 * 64**2 * 384)
        for one in parts
        if one.kind is Kind.matmul
    ]
    parts = [one for one in parts if one.kind is not Kind.matmul] + products
    counted = apply(LayerTable(parts), SPIKFORMER_PAPER)
    work = defaultdict(float)
    for row in counted.rows:
        where = "products" if row.kind is Kind.matmul else row.name.split(".")[0]
        work[where] += row.dense / 1e6
    assert work["stem"] == pytest.approx(468.5, abs=0.05)
    assert work["block"] == pytest.approx(4 * 113.2, abs=0.2)
    assert work["products"] == pytest.approx(4 * 2 * 1.573, abs=5e-3)
    assert counted.dense / 1e6 == pytest.approx(934.0, abs=0.05)
    fp32, int8 = (
        millijoules(cost_model(name).cost(counted).ann_pJ)
        for name in ("horowitz45", "horowitz45_ann_int8")
    )
    assert fp32 == pytest.approx(4.297, abs=5e-4)
    assert int8 == pytest.approx(0.215, abs=5e-4)


# ---- Spikformer on ImageNet: the table of its paper (arXiv 2209.15425) ----


@pytest.mark.parametrize(
    ("giga", "published"),
    [(6.82, 7.734), (11.09, 11.577), (13.67, 13.899), (22.09, 21.477)],
)
def test_four_sizes_of_spikformer_carry_one_first_layer(giga, published):
    """8-384, 8-512, 10-512 and 8-768 alike hold the first convolution of the 512-wide one, 4 times.

    The operations are rounded to 0.01 G in the source, which is 0.0045 mJ.
    """
    rest = weighted("rest", round(giga * 1e9 / 4), 1, 1)
    parts = [image("stem.0", 64, 224), rest]
    counted = apply(LayerTable(parts), replace(SPIKFORMER_PAPER, static=Static.per_step))
    energy = millijoules(cost_model("horowitz45").cost(counted).snn_pJ)
    assert energy == pytest.approx(published, abs=5e-3)


# ---- ANN baselines: the table of QKFormer (arXiv 2403.16552) ----


def vit_b(side: int) -> list[Layer]:
    """ViT-B/16 and DeiT-B: depth 12, width 768, one class token."""
    grid, D = side // 16, 768
    N = grid**2 + 1
    real = dict(T=1, values=Values.real)
    parts = [weighted("patches", 3 * 16**2, D, grid, **real)]
    for i in range(12):
        # q, k, v, projection and MLP: 12 D^2 for each token
        mixing = weighted(f"block.{i}", D, 12 * D, 1, **real)
        parts.append(replace(mixing, dense=N * mixing.dense, dense_padded=N * mixing.dense_padded))
        product = Layer(
            name=f"block.{i}.attention",
            kind=Kind.matmul,
            values=Values.real,
            samples=1,
            timesteps=1,
            dense=2 * N * N * D,
            dense_padded=2 * N * N * D,
        )
        parts.append(product)
    return [*parts, weighted("head", D, 1000, 1, **real)]


@pytest.mark.parametrize(
    ("side", "published_mJ", "published_gmacs"),
    [(384, 254.84, 55.4), (224, 80.5, 17.5)],
)
def test_ann_transformers_are_their_macs_times_4_6_pj(side, published_mJ, published_gmacs):
    """ViT-B/16 at 384 and DeiT-B at 224: published energies are 4.6 pJ for each of their MACs.

    Softmax, LayerNorm, GELU and memory are not in them.
    """
    counted = apply(LayerTable(vit_b(side)), EXACT)
    energy = millijoules(cost_model("horowitz45").cost(counted).ann_pJ)
    assert counted.dense / 1e9 == pytest.approx(published_gmacs, rel=5e-3)
    assert energy == pytest.approx(published_mJ, rel=5e-3)
    # As published, the two columns agree to all digits.
    alone = weighted("all", round(published_gmacs * 1e9), 1, 1, T=1, values=Values.real)
    alone = cost_model("horowitz45").cost(apply(LayerTable([alone]), EXACT))
    assert millijoules(alone.ann_pJ) == pytest.approx(published_mJ, abs=5e-3)
    assert alone.ratio == 1
