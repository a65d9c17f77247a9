"""`saformer-import` on files as the originals write them, up to the accuracy of the result."""

import argparse
import json
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from reference_nets import QKFormer, SpikformerCifar

from saformer.data.module import SpikingDataModule
from saformer.interop.files import read_weights

SETTINGS = (
    *("model=spikformer_4_384", "dataset=digits"),
    *("model.dim=64", "model.depth=1", "model.num_heads=4", "timesteps=2"),
)


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    net = SpikformerCifar(64, 1, 4, 10, channels=1)
    net.timesteps = 2
    return net


@pytest.fixture
def weights() -> dict:
    return network().state_dict()


@pytest.fixture
def saved(weights) -> str:
    """A checkpoint as timm's CheckpointSaver writes it."""
    args = argparse.Namespace(model="spikformer", lr=5e-4, mean=[0.5], resume=None)
    content = {"epoch": 3, "arch": "spikformer", "state_dict": weights, "version": 2, "args": args}
    torch.save({**content, "metric": 90.0}, "model_best.pth.tar")
    return "model_best.pth.tar"


def test_the_accuracy_is_that_of_the_original(cli, compose):
    """A network of the original is trained, saved, imported, evaluated: equal test accuracy."""
    config = compose(*SETTINGS)
    data = SpikingDataModule(config.dataset, config.augment, 0, config.timesteps)
    data.setup()
    net = network().train()
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    for _ in range(2):
        for batch in data.train_dataloader():
            x, y = data.on_after_batch_transfer(batch, 0)
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
    net.eval()
    right = []
    for batch in data.test_dataloader():
        x, y = data.on_after_batch_transfer(batch, 0)
        with torch.no_grad():
            right.append(net(x).argmax(1) == y)
    accuracy = torch.cat(right).float().mean().item()
    assert accuracy > 0.5
    content = {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 1}
    torch.save({**content, "args": argparse.Namespace(T=2)}, "checkpoint_max_test_acc1.pth")

    acting = sum(p.numel() for name, p in net.named_parameters() if ".norm" not in name)
    done = cli("import_checkpoint", "checkpoint_max_test_acc1.pth", "made/best.ckpt", *SETTINGS)
    assert done == (
        0,
        f"made/best.ckpt: Spikformer (ZK-Zhou/spikformer, cifar10/model.py), {acting:,} "
        "parameters, as spikformer_4_384 on digits, T=2\n"
        "left out, since no forward pass reads them (256 parameters): block.#.norm1.weight, "
        "block.#.norm1.bias, block.#.norm2.weight, block.#.norm2.bias\n",
        "",
    )
    code, _, err = cli("eval", "ckpt_path=made/best.ckpt", "trainer=cpu")
    assert (code, err) == (0, "")
    (result,) = Path("made").glob("eval-*.json")
    assert json.loads(result.read_text())["test/top1"] == pytest.approx(accuracy, abs=1e-6)


@pytest.mark.parametrize("place", ["state_dict", "model", "model_state", "state_dict_ema", None])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("zipped", [True, False])
def test_the_places_of_weights(weights, place, prefix, zipped):
    """Weights are found bare or in their usual places, with or without DDP's prefix, old or new."""
    named = {prefix + name: tensor for name, tensor in weights.items()}
    content = named if place is None else {"epoch": 1, place: named}
    torch.save(content, "weights.pth", _use_new_zipfile_serialization=zipped)
    found = read_weights(Path("weights.pth"))
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) for name in weights)


def test_qkformers_leak_is_said(cli):
    """An import of QKFormer says what its published accuracies rest on, unless it is asked for."""
    torch.save({"model": QKFormer(64, 4, 8, 10, channels=1).state_dict()}, "checkpoint-199.pth")
    words = ("model=qkformer_4_384", "dataset=digits", "model.dim=64")
    code, out, _ = cli("import_checkpoint", "checkpoint-199.pth", "own.ckpt", *words)
    assert code == 0 and "with attention.batch_leak=true does the same" in out
    words = (*words, "attention.batch_leak=true")
    code, out, _ = cli("import_checkpoint", "checkpoint-199.pth", "leaking.ckpt", *words)
    assert code == 0 and "batch_leak" not in out


def test_nothing_is_overwritten(cli, saved):
    """A file that exists is left as it is."""
    Path("mine.ckpt").write_text("mine")
    code, out, err = cli("import_checkpoint", saved, "mine.ckpt", *SETTINGS)
    assert (code, out) == (2, "")
    assert err == "error: mine.ckpt exists, and nothing is overwritten: name another file\n"
    assert Path("mine.ckpt").read_text() == "mine"


class Code:
    """What runs `touch ran` if its pickle is loaded without care."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch ran",)


def test_no_code_is_run(cli, weights):
    """A pickle with code is refused before it runs."""
    torch.save({"state_dict": weights, "args": Code()}, "evil.pth")
    code, out, err = cli("import_checkpoint", "evil.pth", "out.ckpt", *SETTINGS)
    assert (code, out) == (2, "")
    assert err == (
        "error: evil.pth cannot be read: it holds more than plain data (posix.system), and reading "
        "that could run code. If you trust it, save its state dict alone, with torch, to another "
        "file\n"
    )
    assert not Path("ran").exists() and not Path("out.ckpt").exists()


def damaged(weights: dict) -> None:
    torch.save(weights, "whole.pth")
    Path("cut.pth").write_bytes(Path("whole.pth").read_bytes()[:5000])
    flipped = bytearray(Path("whole.pth").read_bytes())
    flipped[len(flipped) // 2] ^= 1
    Path("flipped.pth").write_bytes(flipped)
    Path("text.pth").write_text("this is no checkpoint")
    name = next(iter(weights))
    torch.save({**weights, name: weights[name] * torch.nan}, "nan.pth")
    torch.save({"optimizer": {"state": {}}, "epoch": 3}, "empty.pth")
    torch.save(torch.nn.Linear(2, 2).state_dict(), "other.pth")
    Path("folder").mkdir()


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("gone.pth", "out"), "gone.pth does not exist: name a file of weights"),
        (("folder", "out"), "folder is a folder: name a file of weights"),
        (("cut.pth", "out"), "cut.pth cannot be read: it is damaged or not a checkpoint"),
        (("flipped.pth", "out"), "flipped.pth cannot be read: it is damaged or not a checkpoint"),
        (("text.pth", "out"), "text.pth cannot be read: it is damaged or not a checkpoint"),
        (
            ("nan.pth", "out"),
            "nan.pth holds values that are not finite (head.weight): it was written by a training "
            "that went bad; use an earlier one",
        ),
        (
            ("empty.pth", "out"),
            "empty.pth holds no weights, neither as they are nor in state_dict, model, "
            "model_state, state_dict_ema",
        ),
        (
            ("other.pth", "out"),
            "other.pth: its tensors (weight, bias, ...) have the names of none of Spikformer, "
            "Spikingformer, Spike-driven Transformer, QKFormer",
        ),
        (
            ("whole.pth",),
            "two files are needed, not 1: type saformer-import CHECKPOINT OUT model=NAME "
            "dataset=NAME",
        ),
        (("whole.pth", "out", "modle=x"), "there is no setting 'modle'. Did you mean 'model'?"),
        (("whole.pth", "out", "--x"), "unrecognized arguments: --x. Help: saformer-import --help"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(cli, weights, words, answer):
    """Files and words that make no sense: one line, exit code 2, and no file is left."""
    damaged(weights)
    assert cli("import_checkpoint", *words) == (2, "", f"error: {answer}\n")
    assert not Path("out").exists()


def test_what_does_not_fit_is_listed(cli, saved):
    """The answer names the file, its size, and each tensor; nothing is written."""
    code, out, err = cli("import_checkpoint", saved, "out", *SETTINGS, "dataset=cifar10")
    assert (code, out) == (2, "")
    assert err == (
        f"error: {saved}: Spikformer (ZK-Zhou/spikformer, cifar10/model.py) of model.dim=64 "
        "model.depth=1 dataset.in_channels=1 dataset.num_classes=10 does not fit "
        "spikformer_4_384 on cifar10:\n"
        "  patch_embed.proj_conv.weight is (8, 1, 3, 3): "
        "backbone.stem.stages.0.conv.weight is (8, 3, 3, 3)\n"
        "Its sizes are not those of these settings: type dataset.in_channels=1\n"
    )
    assert not Path("out").exists()


def test_help_is_instant_and_shows_an_example(cli):
    """--help prints usage and examples."""
    code, out, err = cli("import_checkpoint", "--help")
    assert (code, err) == (0, "")
    assert "saformer-import CHECKPOINT OUT model=NAME dataset=NAME" in out
