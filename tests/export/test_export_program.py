"""The program of torch.export gives what the network gives, and needs no more than PyTorch."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import saformer
from saformer.export.check import compare, look
from saformer.export.program import export_program, save_program
from saformer.models.fold_batch_norm import fold_batch_norm

SOURCE = Path(saformer.__file__).parent
SMALL = ("model.dim=64", "model.depth=1", "model.num_heads=4")
EVENTS = ("dataset=digits_events", "augment=none", "dataset.events.norm=max")
MORE = [
    ("ablation=sew_residual", "neuron=if", "timesteps=2"),
    ("timesteps=3",),
    ("ablation=rate_coding", "timesteps=2"),
    ("model=spikformer_4_384", *SMALL, "neuron=lif_soft", "timesteps=2"),
    ("model=qkformer_4_384", "model.dim=64", "timesteps=2"),
]
SLOW = [pytest.param(words, marks=pytest.mark.slow) for words in MORE]


@pytest.mark.parametrize("overrides", [(*EVENTS, "timesteps=2"), *SLOW])
def test_it_gives_what_the_network_gives(classifier, bytes_of, overrides):
    """Saved and loaded, it takes bytes and gives the same logits for batches of any size."""
    folded = fold_batch_norm(classifier(*overrides))
    save_program(export_program(folded, bytes_of(folded, 1)), Path("model.pt2"))
    program = torch.export.load("model.pt2").module()
    for batch in (1, 2, 17):
        same = compare(folded, program, bytes_of(folded, batch))
        assert same.inputs == batch and same.largest > 0.05
        assert same.difference < 1e-5, batch


@pytest.mark.slow
def test_it_needs_neither_this_package_nor_snntorch(classifier, bytes_of):
    """Where both cannot be imported, the file gives the same logits, and it names no place here."""
    folded = fold_batch_norm(classifier("timesteps=1"))
    x = bytes_of(folded, 5)
    program = export_program(folded, x)
    for wrong in (x.expand(5, 3, 8, 8), x.float()):
        with pytest.raises((RuntimeError, AssertionError)):
            program.module()(wrong)
    save_program(program, Path("model.pt2"))
    assert str(SOURCE).encode() not in Path("model.pt2").read_bytes()
    torch.save(x, "x.pt")
    code = (
        "import sys; sys.modules['saformer'] = sys.modules['snntorch'] = None; import torch; "
        "program = torch.export.load('model.pt2').module(); "
        "torch.save(program(torch.load('x.pt')), 'logits.pt')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        torch.testing.assert_close(torch.load("logits.pt"), folded(x), rtol=0, atol=1e-5)


def test_spikes_are_zeros_and_ones(classifier, bytes_of):
    """With the membrane residual all layers but the first take spikes; with SEW some take sums."""
    for ablation, whole in (("none", set()), ("sew_residual", {"blocks.0.attn.q.0.conv"})):
        folded = fold_batch_norm(classifier(f"ablation={ablation}", "timesteps=2"))
        x = folded.prepare(bytes_of(folded, 8))
        taken, given = look(folded.backbone, x)
        assert all(layer.binary == 1 and 0 < layer.rate < 1 for layer in given)
        first, *others = taken
        assert first.layer == "stem.stages.0.conv" and first.binary < 0.1 and not first.whole
        sums = {layer.layer for layer in others if layer.binary < 1 and layer.whole}
        assert whole <= sums and bool(whole) == bool(sums)


def test_a_difference_is_found(classifier, bytes_of):
    """Two networks that differ are told apart: how far, and in how many classes."""
    one = classifier("timesteps=2")
    other, x = fold_batch_norm(one), bytes_of(one, 8)
    with torch.no_grad():
        unlikely = one(x).sum(0).argmin()
        other.backbone.head.bias[unlikely] += 100
    same = compare(one, other, x)
    assert same.difference == pytest.approx(100, rel=1e-4) and same.changed >= 7
