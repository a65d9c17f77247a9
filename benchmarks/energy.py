"""What counting costs beside a plain forward pass: `python -m benchmarks.energy`.

A middle-sized network (dim 192, two blocks, 32 x 32 pixels, T = 4) is evaluated without gradients,
as our Trainer does it, plainly and under each tool; its neurons run on our backend `torch` and, for
comparison, on the loop of stock `snn.Leaky`. Rounds are interleaved and CPU time of the process is
compared, so that ratios hold on a busy machine; a GPU is not used. NeuroBench and syops are
measured where they are installed: `pip install --no-deps neurobench==2.3.0 syops==0.0.5 progress`.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from io import StringIO
from types import ModuleType
from typing import Any

import torch
from spikingjelly.activation_based.op_counter import (
    ACCounter,
    DispatchCounterMode,
    MACCounter,
    SynOpCounter,
)
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.report import save, table
from saformer.energy import Counter, apply
from saformer.models.attention.settings import AttentionConfig
from saformer.models.settings import Backend, ModelConfig, NeuronConfig
from saformer.models.transformer import SAFormer

Run = Callable[[nn.Module, Tensor], float | None]
"""Forward pass under one tool; returns what it counted, in accumulates and multiply-accumulates."""


def plain(model: nn.Module, x: Tensor) -> None:
    model(x)


def idle_hooks(model: nn.Module, x: Tensor) -> None:
    """The same hooks, doing nothing."""
    handles = [module.register_forward_hook(lambda *args: None) for module in model.modules()]
    model(x)
    for handle in handles:
        handle.remove()


class Ours:
    """One counter for many batches, as in a validation epoch."""

    def __init__(self, model: nn.Module) -> None:
        self.counter = Counter(model)

    def __call__(self, model: nn.Module, x: Tensor) -> float:
        before = self.counter.samples
        with self.counter.counting(len(x)):
            model(x)
        return before  # the operations are read once, after the last round

    def operations(self) -> float:
        counted = apply(self.counter.table())
        return counted.acs + counted.macs


def flop_counter(model: nn.Module, x: Tensor) -> float:
    with FlopCounterMode(display=False) as flops:
        model(x)
    total: int = flops.get_total_flops()
    return total / 2 / len(x)


def spikingjelly(*kinds: type) -> Run:
    def run(model: nn.Module, x: Tensor) -> float:
        counters = [kind() for kind in kinds]
        with DispatchCounterMode(counters):
            model(x)
        total: float = sum(counter.get_total() for counter in counters[:2])
        return total / len(x)

    return run


def neurobench(model: nn.Module, x: Tensor) -> float:
    """Effective operations; products of attention are not seen."""
    import snntorch as snn
    from neurobench.metrics.workload import SynapticOperations
    from neurobench.models import TorchModel

    wrapped = TorchModel(model)
    wrapped.add_activation_module(snn.SpikingNeuron)
    wrapped.register_hooks()
    predictions = wrapped(x)
    counted = SynapticOperations()(wrapped, predictions, (x, None))
    wrapped.cleanup_hooks()
    return float(counted["Effective_MACs"] + counted["Effective_ACs"])


def syops(model: nn.Module, x: Tensor) -> None:
    from syops.engine import add_syops_counting_methods

    with redirect_stdout(StringIO()):
        counting = add_syops_counting_methods(model)
        counting.start_syops_count(ost=StringIO(), verbose=False, ignore_list=[])
        counting(x)
        counting.stop_syops_count()


def stand_ins_for_syops() -> None:
    """syops imports names that SpikingJelly dropped; without them it cannot be imported."""
    neuron = ModuleType("neuron")
    for name in ("IFNode", "LIFNode", "ParametricLIFNode"):
        setattr(neuron, name, type(name, (nn.Module,), {}))
        setattr(neuron, f"MultiStep{name}", type(f"MultiStep{name}", (nn.Module,), {}))
    package = ModuleType("spikingjelly.clock_driven")
    for name in ("surrogate", "functional"):
        setattr(package, name, ModuleType(name))
    package.neuron = neuron  # type: ignore[attr-defined]
    sys.modules["spikingjelly.clock_driven"] = package
    sys.modules["spikingjelly.clock_driven.neuron"] = neuron


@contextmanager
def stopwatch(times: list[float]) -> Iterator[None]:
    start = time.process_time()
    yield
    times.append(time.process_time() - start)


def network(backend: Backend) -> SAFormer:
    """The network, with BatchNorm statistics under which its neurons fire."""
    torch.manual_seed(0)
    model = SAFormer(
        ModelConfig(name="mid", dim=192, depth=2, num_heads=6, patch_size=4),
        AttentionConfig(),
        NeuronConfig(backend=backend),
        in_channels=3,
        image_size=32,
        num_classes=10,
        timesteps=4,
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            module.reset_running_stats()
    with torch.no_grad():
        model.train()(torch.randn(32, 3, 32, 32))
    return model.eval()


def measure(model: nn.Module, batch_size: int, rounds: int) -> dict[str, Any]:
    """Ratios of CPU time to a plain pass, and what each tool counted, at one batch size."""
    x = torch.randn(batch_size, 3, 32, 32)
    ours = Ours(model)
    tools: dict[str, Run] = {
        "plain": plain,
        "hooks that do nothing": idle_hooks,
        "saformer.energy": ours,
        "torch FlopCounterMode": flop_counter,
        "SpikingJelly SynOp": spikingjelly(SynOpCounter),
        "SpikingJelly SynOp, MAC and AC": spikingjelly(SynOpCounter, MACCounter, ACCounter),
    }
    if find_spec("neurobench"):
        tools["NeuroBench SynapticOperations"] = neurobench
    if find_spec("syops"):
        stand_ins_for_syops()
        tools["syops"] = syops
    times: dict[str, list[float]] = {name: [] for name in tools}
    counted: dict[str, float | None] = {}
    for tool in tools.values():
        tool(model, x)
    for _ in range(rounds):
        for name, tool in tools.items():
            with stopwatch(times[name]):
                counted[name] = tool(model, x)
    counted["saformer.energy"] = ours.operations()
    ratio = {
        name: statistics.median(a / b for a, b in zip(values, times["plain"], strict=True))
        for name, values in times.items()
    }
    rows = []
    for name in tools:
        seen = counted[name]
        operations = f"{seen / 1e6:.2f}" if seen else ""
        milliseconds = f"{1e3 * statistics.median(times[name]):.0f}"
        rows.append([name, milliseconds, f"{ratio[name]:.2f}", operations])
    table(["tool", "median ms of CPU", "of plain", "M operations an image"], rows)
    return {"batch_size": batch_size, "ratio": ratio, "operations": counted}


def main() -> None:
    """Measure, print tables, write benchmarks/results/<kind>/energy.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    measured = []
    for backend in (Backend.torch, Backend.loop):
        model = network(backend)
        for size in args.batch_sizes:
            print(f"neurons on backend {backend.value}, batches of {size}")
            with torch.no_grad():
                measured.append({"backend": backend.value, **measure(model, size, args.rounds)})
    save("energy", {**vars(args), "measured": measured}, on_cpu=True)


if __name__ == "__main__":
    main()
