"""The ONNX file gives what the network gives, in onnxruntime and without PyTorch."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import saformer
from saformer.export.check import compare
from saformer.export.onnx import run_onnx, save_onnx
from saformer.export.program import export_program
from saformer.models.fold_batch_norm import fold_batch_norm

SMALL = ("model.dim=64", "model.depth=1", "model.num_heads=4")
KINDS = [
    ("timesteps=2",),
    ("dataset=digits_events", "augment=none", "dataset.events.norm=max", "timesteps=2"),
    ("ablation=sew_residual", "neuron=if", "timesteps=2"),
    ("neuron=plif", "timesteps=3"),
    ("model=spikformer_4_384", *SMALL, "neuron=lif_soft", "timesteps=2"),
    ("model=spikingformer_4_384", *SMALL, "timesteps=2"),
    ("model=sdt_2_256", *SMALL, "timesteps=2"),
    ("model=qkformer_4_384", "model.dim=64", "timesteps=2"),
]


@pytest.mark.slow
@pytest.mark.parametrize("overrides", KINDS)
def test_it_gives_what_the_network_gives(classifier, bytes_of, overrides):
    """It is a valid model that takes bytes and gives the same logits for batches of any size."""
    folded = fold_batch_norm(classifier(*overrides))
    save_onnx(export_program(folded, bytes_of(folded, 1)), Path("model.onnx"))
    onnx.checker.check_model("model.onnx", full_check=True)
    for batch in (1, 3, 17):
        same = compare(folded, run_onnx(Path("model.onnx")), bytes_of(folded, batch))
        assert same.inputs == batch and same.largest > 0.05
        assert same.difference < 1e-5 and same.changed == 0, batch


def test_it_needs_neither_this_package_nor_torch(classifier, bytes_of):
    """Where neither can be imported, onnxruntime gives the same logits, of one shape and dtype."""
    folded = fold_batch_norm(classifier("timesteps=1"))
    x = bytes_of(folded, 5)
    save_onnx(export_program(folded, x), Path("model.onnx"))
    model = onnx.load("model.onnx")
    assert [value.name for value in model.graph.input] == ["input"]
    assert [value.name for value in model.graph.output] == ["logits"]
    assert str(Path(saformer.__file__).parent).encode() not in Path("model.onnx").read_bytes()
    for wrong in (x.expand(5, 3, 8, 8), x.float()):
        with pytest.raises(Exception, match="INVALID_ARGUMENT"):
            run_onnx(Path("model.onnx"))(wrong)
    np.save("x.npy", x.numpy())
    code = (
        "import sys; "
        "sys.modules['saformer'] = sys.modules['snntorch'] = sys.modules['torch'] = None; "
        "import numpy as np, onnxruntime; model = onnxruntime.InferenceSession('model.onnx'); "
        "np.save('logits.npy', model.run(['logits'], {'input': np.load('x.npy')})[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        np.testing.assert_allclose(np.load("logits.npy"), folded(x).numpy(), rtol=0, atol=1e-5)
