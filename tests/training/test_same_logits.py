"""Whether logits depend on the image is told apart from how their sums were rounded."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from saformer.training.same_logits import SameLogits

ONE = torch.tensor([3.0, -1.0, 0.5])


def same(*batches: torch.Tensor, dtype: torch.dtype = torch.float32) -> bool:
    metric = SameLogits(3)
    for batch in batches:
        metric.update(batch, dtype)
    return bool(metric.compute())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_rounding_is_no_difference(dtype):
    """The same row over all batches is the same, also one unit in the last place beside it."""
    rows = ONE.to(dtype).repeat(4, 1)
    beside = rows * (1 + torch.finfo(dtype).eps)
    assert same(rows.float(), beside.float(), dtype=dtype)


@pytest.mark.parametrize("difference", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_image_that_differs_is_enough(difference, place):
    """In any batch, in any class, up or down."""
    other = ONE.clone()
    other[place] += difference
    assert not same(ONE.repeat(4, 1), torch.stack([ONE, other]))
    assert not same(other[None], ONE.repeat(4, 1))


def test_a_single_image_says_nothing():
    """There is none that it could differ from."""
    assert not same(ONE[None])
    assert same(ONE[None], ONE[None])
    assert same(torch.zeros(2, 3))


SCRIPT = """
import sys
import torch
import torch.distributed as dist
from saformer.training.same_logits import SameLogits

rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
for own in ([[1.0, 2.0]], [[1.0, 2.0 + rank]]):  # the same in both, and not
    metric = SameLogits(2)
    metric.update(torch.tensor(own), torch.float32)
    print(bool(metric.compute()))
"""


@pytest.mark.slow
def test_all_processes_answer_for_all_images():
    """Each has one image; they are the same, or differ between the two."""
    Path("script.py").write_text(SCRIPT)
    command = [sys.executable, "script.py"]
    place = str(Path("meet").absolute())
    processes = [
        subprocess.Popen([*command, str(rank), place], stdout=subprocess.PIPE, env=os.environ)
        for rank in range(2)
    ]
    said = [process.communicate(timeout=120)[0].decode().split() for process in processes]
    assert said == [["True", "False"]] * 2
