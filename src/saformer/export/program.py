"""Write the whole network as one PyTorch program, from bytes to logits.

torch.export records the operations of one forward pass with its weights. The file loads in any
Python that has PyTorch, without this package.

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
        network: A network in evaluation mode, with one input whose first axis is the batch.
        x: An input; the program has its shape and dtype, but takes any batch size.
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
    return any(torch.Tag.nondeterministic_seeded in node_tags for node_tags in tags)


def save_program(program: ExportedProgram, path: Path) -> None:
    """Write a program to a file.

    Args:
        program: The program.
        path: A new file with the ending `.pt2`.
    """
    with warnings.catch_warnings():
        # These warn about membranes, which are empty between forward passes.
        warnings.filterwarnings("ignore", message="No complete tensor found")
        torch.export.save(program, path)
