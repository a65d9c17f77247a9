"""Where a training step goes, by kind of operation, ours beside SpikingJelly's.

    python -m benchmarks.operations

The networks are those of `benchmarks.train_step`, profiled by PyTorch one after the other, so that
shares of a step are more exact than sums. They run on the CPU, also where there is a GPU. It prints
a table and writes operations.json; docs/speed.md says what follows.
"""

import argparse
import re
from collections import defaultdict

import torch
from torch._inductor import config as inductor
from torch.profiler import ProfilerActivity, profile

from benchmarks.networks import NETWORKS, Case
from benchmarks.report import save, table
from benchmarks.trainee import Trainee

KINDS = {
    "convolutions, products": r"conv|mm$|mm_|addmm|bmm|linear|mkl|dnnl",
    "fused by a compiler": r"fused|CompiledFunction|kernel",
    "BatchNorm": r"batch_norm",
    "pooling": r"pool",
    "optimizer": r"Optimizer|adam|foreach",
    "copies, casts": r"copy_|_to_copy|contiguous|clone|cat$|stack",
    "elementwise": (
        r"add|sub|mul|div|sigmoid|ge$|gt$|le$|where|pow|neg|rsub|threshold|bitwise|"
        r"sum|mean|fill_|zero_|bool|shift|exp|sqrt"
    ),
}
COMPARED = ("ours", "ours-compile", "ours-compile-whole", "identity", "sj", "sj-compile-layout")
WARMUP = 3


def kind_of(name: str) -> str:
    """The first kind whose pattern is in the name of an operation."""
    bare = name.removeprefix("aten::")
    return next((kind for kind, words in KINDS.items() if re.search(words, bare)), "all else")


def measure(name: str, case: Case, steps: int) -> dict[str, float]:
    """Milliseconds of a step by kind of operation.

    Args:
        name: Of the network.
        case: What is trained.
        steps: Steps that are profiled.
    """
    trainee = Trainee(name, case, torch.device("cpu"))
    for _ in range(WARMUP):
        trainee.step()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(steps):
            trainee.step()
    found: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        found[kind_of(event.key)] += event.self_cpu_time_total / steps / 1e3
    return dict(found)


def main() -> None:
    """Profile the networks, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=COMPARED)
    options = parser.parse_args()
    inductor.cpp.enable_kernel_profile = True
    case = Case(timesteps=4, batch=16)
    torch.set_num_threads(case.threads)
    found = {name: measure(name, case, options.steps) for name in options.networks}
    kinds = [*KINDS, "all else"]
    rows = []
    for name, each in found.items():
        shown = [*(each.get(kind, 0.0) for kind in kinds), sum(each.values())]
        rows.append([NETWORKS[name].label, *(f"{ms:.0f}" for ms in shown)])
    table(["ms of a step", *kinds, "all"], rows)
    save("operations", {"steps": options.steps, "case": vars(case), "ms": found}, on_cpu=True)


if __name__ == "__main__":
    main()
