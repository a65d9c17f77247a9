"""The profile of a training step: what takes time is found where it is, forward and backward."""

import re
import time

import pytest
import torch
from mostly_slow import mostly_slow
from torch import nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.step_profile import (
    ATTENTION,
    DATA,
    ELSE,
    HEAD,
    MATMUL,
    MLP,
    NEURON,
    NORM,
    OPTIMIZER,
    OTHER,
    PARTS,
    POOLING,
    SETTINGS,
    STEM,
    _Ranges,
    attribute,
    mark,
)
from saformer.models.block import Block
from saformer.models.layers import ConvBN
from saformer.models.neuron import MultiStepLeaky
from saformer.models.spike_ops import SpikeMatMul

TINY = ("model.dim=16", "model.num_heads=2", "timesteps=2")


class Nap(torch.autograd.Function):
    """Takes 20 ms forward and 40 ms backward."""

    @staticmethod
    def forward(ctx, x):
        time.sleep(0.02)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        time.sleep(0.04)
        return gradient


NAP = 0.06


def let_nap(layer: nn.Module) -> None:
    """Make a layer slow, of whatever type it is."""
    forward = layer.forward
    layer.forward = lambda *x: Nap.apply(forward(*x))


@pytest.fixture
def shares():
    """Profile a forward and a backward pass of a backbone, as `StepProfile` marks it."""

    def call(backbone: nn.Module):
        module = nn.Module()
        module.backbone = backbone
        own = [len(part._forward_hooks) for part in backbone.modules()]
        handles = mark(module)
        actions = _Ranges()
        x = torch.randn(2, 1, 8, 8)
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            with actions.profile("[Strategy]SingleDeviceStrategy.training_step"):
                loss = backbone(x).mean()
            with actions.profile("[Strategy]SingleDeviceStrategy.backward"):
                loss.backward()
        for handle in handles:
            handle.remove()
        assert [len(part._forward_hooks) for part in backbone.modules()] == own
        return attribute(profiler.events())

    return call


def first(module: nn.Module, kind: type) -> nn.Module:
    return next(part for part in module.modules() if isinstance(part, kind))


SLOW = {
    (STEM, MATMUL): lambda net: first(net.stem, ConvBN).conv,
    (STEM, NORM): lambda net: first(net.stem, ConvBN).bn,
    (STEM, POOLING): lambda net: first(net.stem, nn.MaxPool2d),
    (ATTENTION, NEURON): lambda net: first(net.blocks[0].attn, MultiStepLeaky),
    (ATTENTION, MATMUL): lambda net: first(net.blocks[0].attn, SpikeMatMul),
    (ATTENTION, ELSE): lambda net: net.blocks[0].attn_add,
    (MLP, MATMUL): lambda net: first(net.blocks[0].mlp, nn.Conv2d),
    (HEAD, NEURON): lambda net: net.head_lif,
    (HEAD, MATMUL): lambda net: net.head,
}


@pytest.mark.parametrize("place", mostly_slow(SLOW, 3), ids=" ".join)
def test_a_slow_layer_is_found(backbone, shares, place):
    """The time of a layer counts for its part and its kind, forward and backward."""
    network = backbone("attention=ssa", *TINY, "model.dwc.place=none")
    shares(network)  # once before, since the first pass is slow by itself
    let_nap(SLOW[place](network))
    found = shares(network)
    assert found[place] >= NAP
    assert max(found, key=lambda key: found[key]) == place


class SlowConvolution(torch.autograd.Function):
    """A convolution in a single step of autograd, 40 ms backward."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(weight)
        return torch.nn.functional.conv2d(x, weight, padding=1)

    @staticmethod
    def backward(ctx, gradient):
        time.sleep(0.04)
        return None, torch.zeros_like(ctx.saved_tensors[0])


def test_views_before_the_first_layer_do_not_take_its_time(backbone, shares):
    """Views of images, which need no gradient, share their number with the first convolution."""
    network = backbone(*TINY)
    layer = first(network.stem, ConvBN).conv
    layer.forward = lambda x: SlowConvolution.apply(x, layer.weight)
    shares(network)
    assert shares(network)[STEM, MATMUL] >= 0.04


def test_recomputed_layers_are_found(backbone, shares):
    """What the backward pass computes again counts for the layer that it belongs to."""
    network = backbone(*TINY)
    network.recompute_blocks = True
    shares(network)
    let_nap(first(network.blocks[0].mlp, MultiStepLeaky))
    assert shares(network)[MLP, NEURON] >= NAP + 0.02


def test_a_patch_embedding_between_the_blocks_is_stem(backbone, shares):
    """In a hierarchical backbone the embeddings of all stages are stem, and the blocks are not."""
    network = backbone("model=qkformer_4_384", "dataset=digits", "model.dim=64", "timesteps=1")
    embedding = [block for block in network.blocks if not isinstance(block, Block)]
    shares(network)
    let_nap(first(embedding[-1], nn.BatchNorm2d))
    assert shares(network)[STEM, NORM] >= NAP


def test_the_command_prints_one_table_and_leaves_no_run(cli, monkeypatch, tmp_path):
    """It prints shares that add up to a step; outputs/ stays as it was."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    code, out, _ = cli("train", *SETTINGS, "callbacks.profile.steps=1", *TINY)
    assert code == 0
    assert not (tmp_path / "outputs").exists()
    assert not list(tmp_path.rglob("results.json")) + list(tmp_path.rglob("*.ckpt"))
    assert re.search(r"first step [\d.]+ s \(nothing was compiled\), then [\d.]+ ms a step", out)
    assert "(median of 1 steps after 3)" in out
    table = {row[0]: row[1:] for row in map(_cells, out.splitlines()) if len(row) == 7}
    assert list(table) == [*PARTS, "all of the network"]
    assert sum(float(table[part][-1]) for part in PARTS) == pytest.approx(100, abs=0.5)
    network = table["all of the network"]
    for column in range(6):
        parts = [table[part][column] for part in PARTS if part not in (DATA, OPTIMIZER, OTHER)]
        assert sum(float(cell or 0) for cell in parts) == pytest.approx(
            float(network[column]), abs=0.3
        )
    assert all(float(table[part][-1]) > 0 for part in (STEM, ATTENTION, MLP, DATA, OPTIMIZER))
    assert f"alone: {network[0]} %" in out


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("│")[1:-1]]


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (
            ["dataset.batch_size=1437", "epochs=2", "scheduler.warmup_epochs=0"],
            "a profile needs 5 training steps",
        ),
        (["compile=true"], "type compile=false"),
    ],
)
def test_what_cannot_be_profiled_is_refused(cli, monkeypatch, tmp_path, words, answer):
    """Too few steps, or a network that is one compiled piece, are answered in a line."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    code, _, err = cli("train", *SETTINGS, "callbacks.profile.steps=1", *TINY, *words)
    assert code == 2
    assert answer in err.splitlines()[-1] and "Traceback" not in err
