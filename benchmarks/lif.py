"""One neuron layer, forward and backward, on every backend: `python -m benchmarks.lif`.

The yardsticks are the loop that snnTorch's documentation shows (stock `snn.Leaky`, x[t] each step),
SpikingJelly's multi-step `LIFNode`, which on a CPU runs in plain torch, and the time to move the 24
bytes that a neuron-step cannot do without: forward reads x and writes spike and membrane, backward
reads gradient and membrane and writes the gradient of x. Rounds are interleaved, so that ratios
hold on a busy machine.

By itself glibc asks the system for every large tensor anew, and a benchmark of one layer then times
page faults; `--malloc tuned` (the default) keeps the memory, as a whole training more or less does.

With a GPU everything runs there; no result here comes from one yet.
"""

import argparse
import os
import statistics
import sys
from collections.abc import Callable
from functools import partial

import snntorch as snn
import torch
from spikingjelly.activation_based import functional, neuron
from torch import Tensor

from benchmarks.networks import device, now, stepped
from benchmarks.report import save, table
from saformer.models.neuron import MultiStepLeaky
from saformer.models.settings import Backend

BETA, THRESHOLD = 0.5, 1.0
KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "20000000000",
    "MALLOC_TOP_PAD_": "268435456",
}


def stock_loop() -> Callable[[Tensor], Tensor]:
    """snn.Leaky as its tutorials use it."""
    leaky = snn.Leaky(beta=BETA, threshold=THRESHOLD, reset_mechanism="zero").to(device())
    return partial(stepped, leaky)


class SpikingJelly:
    """Its LIFNode with tau = 2 and the input not scaled: the same equations.

    Args:
        compiled: Whether torch.compile has it.
    """

    def __init__(self, compiled: bool) -> None:
        self.node = neuron.LIFNode(
            tau=1 / (1 - BETA),
            decay_input=False,
            v_threshold=THRESHOLD,
            detach_reset=True,
            step_mode="m",
        ).to(device())
        if compiled:
            self.node.compile()

    def __call__(self, x: Tensor) -> Tensor:
        functional.reset_net(self.node)
        spikes: Tensor = self.node(x)
        return spikes


def ours(backend: Backend) -> Callable[[Tensor], Tensor]:
    """The same neuron on one of our backends."""
    layer = MultiStepLeaky(beta=BETA, threshold=THRESHOLD, reset_mechanism="zero", backend=backend)
    call: Callable[[Tensor], Tensor] = layer.to(device()).__call__
    return call


def seconds(layer: Callable[[Tensor], Tensor], x: Tensor, gradient: Tensor) -> float:
    """Wall time of one forward and backward pass."""
    x.grad = None
    start = now(x)
    layer(x).backward(gradient)
    return now(x) - start


def copy_seconds(x: Tensor, other: Tensor) -> float:
    """Wall time to move 24 bytes for each element: three copies of 4 bytes read, 4 written."""
    start = now(x)
    for _ in range(3):
        other.copy_(x)
    return now(x) - start


def main() -> None:
    """Measure, print a table, write benchmarks/results/<kind>/lif.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs="+", default=[4, 32, 96, 32, 32])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--malloc", choices=("tuned", "default"), default="tuned")
    args = parser.parse_args()
    if args.malloc == "tuned" and "MALLOC_MMAP_MAX_" not in os.environ:  # read at process start
        command = [sys.executable, "-m", "benchmarks.lif", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, **KEEP_MEMORY})
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    x = (torch.randn(args.shape) * 1.5 + 0.6).to(device()).requires_grad_()
    gradient = torch.randn(args.shape).to(device())
    other = torch.empty(args.shape, device=device())
    layers: dict[str, Callable[[Tensor], Tensor]] = {
        "snn.Leaky, x[t]": stock_loop(),
        "SpikingJelly": SpikingJelly(compiled=False),
        "SpikingJelly, compiled": SpikingJelly(compiled=True),
        "loop": ours(Backend.loop),
        "torch": ours(Backend.torch),
        "compile": ours(Backend.compile),
    }
    times: dict[str, list[float]] = {name: [] for name in [*layers, "copy floor"]}
    for name, layer in layers.items():
        first = seconds(layer, x, gradient)
        print(f"{name}: first call {first:.2f} s", flush=True)
    with torch.no_grad():
        copy_seconds(x, other)
    for _ in range(args.rounds):
        for name, layer in layers.items():
            times[name].append(seconds(layer, x, gradient))
        with torch.no_grad():
            times["copy floor"].append(copy_seconds(x, other))
    median = {name: statistics.median(values) for name, values in times.items()}
    stock, floor = times["snn.Leaky, x[t]"], times["copy floor"]

    def ratio(a: list[float], b: list[float]) -> float:
        return statistics.median(x / y for x, y in zip(a, b, strict=True))

    speedup = {name: ratio(stock, values) for name, values in times.items()}
    of_floor = {name: ratio(values, floor) for name, values in times.items()}
    rows = [
        [name, f"{1e3 * median[name]:.1f}", f"{speedup[name]:.1f}", f"{of_floor[name]:.2f}"]
        for name in times
    ]
    table(["backend", "median ms", "times faster", "x copy floor"], rows)
    result = {**vars(args), "median_s": median, "speedup": speedup, "of_floor": of_floor}
    save("lif" if args.malloc == "tuned" else "lif_default_malloc", result)


if __name__ == "__main__":
    main()
