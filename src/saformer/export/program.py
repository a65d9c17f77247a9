"""The whole network as one program of PyTorch: bytes in, logits out.

torch.export records the operations of one forward pass with its weights. The file loads in any
Python that has PyTorch, and nothing of this package is imported.

T timesteps, B batch, C channels, H W height and width, K classes.
"""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram


def export_program(network: nn.Module, x: Tensor) -> ExportedProgram:
    """Record a network that takes a batch of any size.

    Args:
        network: In evaluation mode, of one input whose first axis is the batch.
        x: An input; its shape and dtype are those of the program, but for the batch.
    """
    assert not network.training, "a program of training mode would change BatchNorm's statistics"
    # With a single sample, torch.export would make the batch size a constant.
    pair = x[:1].expand(2, *x.shape[1:]).contiguous()
    with torch.no_grad(), warnings.catch_warnings():
        # These warn about membranes of snnTorch's neurons, which are empty between forward passes.
        warnings.filterwarnings("ignore", message="The tensor attribute")
        batch = Dim("batch", min=1)
        program = torch.export.export(network, (pair,), dynamic_shapes=({0: batch},), strict=False)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names files of this machine
    return program


def draws(program: ExportedProgram) -> bool:
    """Whether a program draws random numbers, as rate coding does."""
    tags = (getattr(node.target, "tags", ()) for node in program.graph.nodes)
    return any(torch.Tag.nondeterministic_seeded in of_one for of_one in tags)


def save_program(program: ExportedProgram, path: Path) -> None:
    """Write a program to a file of the ending `.pt2`.

    Args:
        program: The program.
        path: A file that is not there yet.
    """
    with warnings.catch_warnings():
        # These warn about membranes, which are empty between forward passes.
        warnings.filterwarnings("ignore", message="No complete tensor found")
        torch.export.save(program, path)
