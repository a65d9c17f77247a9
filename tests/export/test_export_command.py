"""`saformer-export` from a checkpoint to files, and what it answers where it cannot."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_everything_is_written_and_compared(cli, checkpoint, classifier, bytes_of):
    """Both files and facts are there; the program gives the logits of the checkpoint."""
    code, out, err = cli("export", str(checkpoint("timesteps=2")), "new/deployed")
    assert (code, err) == (0, "")
    facts = json.loads(Path("new/deployed/export.json").read_text())
    assert facts["input"]["shape"] == ["B", 1, 8, 8] and facts["input"]["dtype"] == "uint8"
    assert facts["output"]["shape"] == ["B", 10]
    assert facts["inputs_compared"] == "16 test items of digits"
    agreement = facts["onnx"]["against_the_checkpoint"]
    assert agreement["inputs"] == 16 and agreement["largest"] > 0.05
    assert agreement["difference"] < 1e-2 and agreement["changed"] == 0
    for file, name in (("program", "model.pt2"), ("onnx", "model.onnx")):
        assert facts[file]["file"] == name and Path("new/deployed", name).stat().st_size > 10_000
        assert facts[file]["against_the_folded_network"]["inputs"] == 16
        assert facts[file]["against_the_folded_network"]["difference"] < 1e-5
    assert all(layer["binary"] == 1 for layer in facts["neurons_give"])
    assert [x["layer"] for x in facts["weight_layers_take"] if x["binary"] < 1] == [
        "stem.stages.0.conv"
    ]
    assert facts["versions"]["onnx"] and facts["config"]["timesteps"] == 2

    program = torch.export.load("new/deployed/model.pt2").module()
    made = classifier("timesteps=2")
    x = bytes_of(made, 3)
    with torch.no_grad():
        torch.testing.assert_close(program(x), made(x), rtol=0, atol=1e-2)

    first, *files, given, taken, last = out.splitlines()
    assert first == (
        "saformer_tiny on digits, T=2: uint8 [B, 1, 8, 8] -> logits [B, 10], "
        "compared on 16 test items of digits"
    )
    for line, name in zip(files, ("model.pt2", "model.onnx"), strict=True):
        assert re.fullmatch(
            rf"new/deployed/{name}: logits up to \d+\.\d\d, largest \|difference\| \d\.\de[-+]\d\d "
            r"to the network with BatchNorm folded, \d\.\de[-+]\d\d to the checkpoint; "
            "0 of 16 classes changed",
            line,
        ), line
    assert given.endswith("12 of 12 neuron layers give them")
    assert taken.endswith("11 of 12 weight layers take them; stem.stages.0.conv: real numbers")
    assert last.startswith("new/deployed/export.json")


@pytest.mark.parametrize(
    ("package", "files", "answer"),
    [
        (
            "onnxscript",
            {"model.pt2", "export.json"},
            "no ONNX, since onnxscript is not installed: pip install 'saformer[export]', and "
            "export again to another folder",
        ),
        pytest.param(
            "onnxruntime",
            {"model.pt2", "model.onnx", "export.json"},
            "deployed/model.onnx: not compared, since onnxruntime is not installed",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_without_a_package_the_rest_is_written(
    cli, checkpoint, monkeypatch, package, files, answer
):
    """One line says what is missing; the program is there, and data need not be."""
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    saved = checkpoint("timesteps=1", "dataset=cifar10", "augment=none", "dataset.root=gone")
    code, out, err = cli("export", str(saved), "deployed")
    assert (code, err) == (0, "")
    assert answer in out.splitlines()
    assert {path.name for path in Path("deployed").iterdir()} == files
    facts = json.loads(Path("deployed/export.json").read_text())
    assert facts["onnx"] == ({"file": "model.onnx"} if "model.onnx" in files else None)
    reason = "16 inputs of random bytes, since cifar10 cannot be read here"
    assert facts["inputs_compared"] == reason


@pytest.mark.slow
def test_random_spikes_are_said_to_be_others(cli, checkpoint):
    """Rate coding draws in onnxruntime too, and the line says why its logits are others."""
    saved = checkpoint("ablation=rate_coding", "timesteps=2")
    code, out, err = cli("export", str(saved), "deployed")
    assert (code, err) == (0, "")
    program, onnx = (line for line in out.splitlines() if line.startswith("deployed/model."))
    assert onnx.endswith("; its random spikes differ, since onnxruntime draws them")
    assert "random" not in program
    facts = json.loads(Path("deployed/export.json").read_text())
    assert facts["program"]["against_the_folded_network"]["difference"] < 1e-5
    assert facts["onnx"]["against_the_folded_network"]["difference"] > 1e-3


def test_nothing_is_overwritten(cli, checkpoint):
    """A folder that holds something, and a file, are left as they are."""
    saved = str(checkpoint("timesteps=1"))
    Path("full").mkdir()
    Path("full/mine.txt").write_text("mine")
    for out in ("full", "full/mine.txt"):
        code, told, err = cli("export", saved, out)
        assert (code, told) == (2, "")
        assert err == (f"error: {out} exists, and nothing is overwritten: name a new folder\n")
    assert [path.name for path in Path("full").iterdir()] == ["mine.txt"]
    assert Path("full/mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("gone.ckpt", "out"), "gone.ckpt does not exist"),
        (("text.ckpt", "out"), "text.ckpt cannot be read .*damaged or not a checkpoint.*"),
        (("other.ckpt", "out"), "other.ckpt holds no SAFormer configuration.*"),
        (("other.ckpt",), "the following arguments are required: OUT. Help: .* --help"),
        (("other.ckpt", "out", "--x"), "unrecognized arguments: --x. Help: .* --help"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(cli, words, answer):
    """Files that are no checkpoints and words that make no sense: exit code 2, and no folder."""
    Path("text.ckpt").write_text("no checkpoint")
    torch.save({"state_dict": {}}, "other.ckpt")
    code, out, err = cli("export", *words)
    assert (code, out) == (2, "")
    assert re.fullmatch(f"error: {answer}\n", err), err
    assert not Path("out").exists()


def test_recordings_that_are_resized_must_be_there(cli, checkpoint):
    """The program resizes frames from the side that recordings have, so it must be known."""
    words = ("dataset=cifar10_dvs", "dataset.events.resize=bilinear", "dataset.image_size=64")
    saved = checkpoint(*words, "model.patch_size=16", "timesteps=1", "augment=none")
    code, _, err = cli("export", str(saved), "deployed")
    assert code == 2 and err.startswith("error: the program resizes the frames of cifar10_dvs")
    assert not Path("deployed").exists()


@pytest.mark.slow
def test_the_page_is_run(cli, checkpoint):
    """The Python of docs/export.md runs on what the command wrote, and both files agree."""
    assert cli("export", str(checkpoint("timesteps=1")), "deployed")[0] == 0
    page = (ROOT / "docs" / "export.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    scope: dict = {}
    for block in blocks:
        exec(block, scope)
    assert scope["classes"].shape == (16,)
    assert (scope["classes"].numpy() == scope["logits"].argmax(1)).all()


@pytest.mark.slow
def test_an_older_pytorch_leaves_onnx_out(cli, checkpoint, monkeypatch):
    """If PyTorch is too old to write ONNX of a network, the rest is written, and a line says so."""
    from saformer.commands import export
    from saformer.export import onnx

    def broken(*_args):
        raise NotImplementedError("aten.div_")

    monkeypatch.setattr(onnx, "save_onnx", broken)
    with pytest.raises(NotImplementedError):
        cli("export", str(checkpoint("timesteps=1")), "known")
    monkeypatch.setattr(export, "TESTED", "99.0")
    code, out, _err = cli("export", str(checkpoint("timesteps=1")), "old")
    assert code == 0 and "cannot write this network (NotImplementedError), PyTorch 99.0 can" in out
    assert Path("old/model.pt2").exists() and not Path("old/model.onnx").exists()
