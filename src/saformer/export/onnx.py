"""The same program as ONNX, for runtimes that are not PyTorch.

PyTorch translates the operations of a `torch.export` program one by one, so what is in the one file
is in the other.
"""

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor, onnx
from torch.export import ExportedProgram


def missing(*names: str) -> list[str]:
    """Which of these packages are not installed."""
    return [name for name in names if find_spec(name) is None]


def save_onnx(program: ExportedProgram, path: Path) -> None:
    """Write a program as an ONNX model with one input `input` and one output `logits`.

    Weights of more than 2 GB, the most that such a file holds, go into a second file beside it.

    Args:
        program: A program whose batch is of any size.
        path: A file that is not there yet, of the ending `.onnx`.
    """
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass  # comes with onnxscript

    with warnings.catch_warnings():
        # PyTorch and onnxscript warn about future changes of their own.
        warnings.simplefilter("ignore")
        made = onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=["input"],
            output_names=["logits"],
            dynamic_shapes=({0: "batch"},),
        )
    assert made is not None, "without a path PyTorch returns the model"
    # Metadata are half of the file, and name folders of this machine.
    ClearMetadataAndDocStringPass()(made.model)
    made.save(path)


def run_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    """The model of a file in onnxruntime on the CPU: input to logits."""
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(["logits"], {"input": x.numpy()})[0])
