"""Write the same program as ONNX, for runtimes other than PyTorch.

PyTorch translates the operations of a `torch.export` program one by one, so both files have the
same content.
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

    An ONNX file holds at most 2 GB, so larger weights go into a second file beside it.

    Args:
        program: A program for batches of any size.
        path: A new file with the ending `.onnx`.
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
    # The metadata is half of the file, and names folders of this machine.
    ClearMetadataAndDocStringPass()(made.model)
    made.save(path)


def run_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    """Load a model into onnxruntime on the CPU; return a function from input to logits."""
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(["logits"], {"input": x.numpy()})[0])
