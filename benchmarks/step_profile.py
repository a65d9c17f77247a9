"""Where a training step goes: `python -m benchmarks.step_profile [setting=value ...]`.

It trains a few steps, prints one table and ends. It logs, counts, validates and tests nothing, and
what a run writes about itself goes to the temporary folder.

The profiler gives every operation its own time. Ranges, which hooks open around modules and
Lightning around what it does, say what a forward operation belongs to; a backward operation carries
the sequence number of its forward one, and belongs where that does.
"""

import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import lightning.pytorch as pl
import snntorch as snn
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.profilers import Profiler
from rich.table import Table
from torch import nn
from torch.autograd.profiler import record_function
from torch.autograd.profiler_util import FunctionEvent
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from saformer import cli
from saformer.config.schema import Config
from saformer.errors import SettingError, require
from saformer.models.block import Block
from saformer.models.spike_ops import SpikeMatMul
from saformer.terminal import console
from saformer.training.callbacks.meter import compile_seconds

SETTINGS = (
    *("callbacks=none", "energy=off", "logger=none", "+trainer.limit_val_batches=0"),
    "plots=false",
    "+callbacks.profile={_target_:benchmarks.step_profile.StepProfile,steps:5}",
    "hydra.run.dir=${oc.env:TMPDIR,/tmp}/saformer-profile/${run_id:}",
)
"""Settings of the training that is measured, before those that are typed."""

Shares = dict[tuple[str, str], float]
"""Seconds by part of the step, and within the network by kind of layer."""

STEM, ATTENTION, MLP, HEAD = "stem", "attention", "MLP", "head"
REST = "loss, rest of the network"
DATA, OPTIMIZER, OTHER = "data", "optimizer", "logging and all else"
NETWORK = (STEM, ATTENTION, MLP, HEAD, REST)
PARTS = (*NETWORK, DATA, OPTIMIZER, OTHER)
MATMUL, NEURON, NORM, POOLING, ELSE = "convolution, matmul", "neuron", "BN", "pooling", "other"
KINDS = (MATMUL, NEURON, NORM, POOLING, ELSE)
TYPES: tuple[tuple[type[nn.Module] | tuple[type[nn.Module], ...], str], ...] = (
    ((nn.Conv2d, nn.Linear, SpikeMatMul), MATMUL),
    (snn.SpikingNeuron, NEURON),
    (_BatchNorm, NORM),
    (nn.MaxPool2d, POOLING),
)
ACTIONS = (  # what Lightning's names of what it does contain, and the part of the step that it is
    ("train_dataloader_next", DATA),
    ("batch_to_device", DATA),
    ("batch_transfer", DATA),
    (".training_step", REST),
    (".backward", REST),
    ("optimizer_step", OPTIMIZER),
    ("optimizer_zero_grad", OPTIMIZER),
)
MARK = "saformer:"
WARMUP = 3
"""Steps before the measured ones, in which kernels are compiled and memory is taken."""


def main() -> None:
    """Profile the training that is typed."""
    sys.argv[1:] = [*SETTINGS, *sys.argv[1:]]
    cli.train()


class StepProfile(Callback):
    """Measures training steps, prints where their time goes, and ends the process.

    Some steps warm up; then come as many without the profiler, whose median is the time of a step,
    and as many with it, which gives the shares.

    Args:
        steps: How many of each.
    """

    def __init__(self, steps: int = 5) -> None:
        super().__init__()
        ok = type(steps) is int and steps >= 1
        require(ok, "callbacks.profile.steps", "be a whole number of at least 1", steps)
        # The profiler's own words on stderr; read at its first start.
        os.environ.setdefault("KINETO_LOG_LEVEL", "6")
        self.steps = steps
        self._ends: list[float] = []
        self._compile_s = self._compiled_before = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        config = getattr(pl_module, "config", None)
        if isinstance(config, Config) and config.compile:
            raise SettingError(
                "compile=true leaves the profile no layers to tell apart: type compile=false"
            )
        self._compiled_before = compile_seconds()
        self._ends = [time.perf_counter()]

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        self._ends.append(time.perf_counter())
        done = len(self._ends) - 1
        if done == 1:
            self._compile_s = compile_seconds() - self._compiled_before
        if done == WARMUP + self.steps:
            self._start(trainer, pl_module)
        elif done == WARMUP + 2 * self.steps:
            shares = self._stop(pl_module)
            if trainer.is_global_zero:
                self._print(shares, len(batch[0]) * trainer.world_size)
            sys.exit(0)  # there is nothing to test

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        needed, done = WARMUP + 2 * self.steps, len(self._ends) - 1
        raise SettingError(
            f"a profile needs {needed} training steps, and there are {done}: type a larger "
            "epochs, or a smaller callbacks.profile.steps or dataset.batch_size"
        )

    def _start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.profiler = _Ranges()  # type: ignore[attr-defined]
        self._handles = mark(pl_module)
        activities = [torch.profiler.ProfilerActivity.CPU]
        if pl_module.device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self._profiler = torch.profiler.profile(activities=activities)
        self._profiler.start()
        self._since = time.perf_counter()

    def _stop(self, pl_module: pl.LightningModule) -> Shares:
        wall = time.perf_counter() - self._since
        self._profiler.stop()
        for handle in self._handles:
            handle.remove()
        on_gpu = pl_module.device.type == "cuda"
        shares = attribute(self._profiler.events() or [], on_gpu)
        shares[OTHER, ELSE] = wall - sum(shares.values())
        return {key: seconds / self.steps for key, seconds in shares.items()}

    def _print(self, shares: Shares, samples: int) -> None:
        first, *later = [b - a for a, b in zip(self._ends, self._ends[1:], strict=False)]
        step = statistics.median(later[WARMUP - 1 : WARMUP - 1 + self.steps])
        with_profiler = sum(shares.values())
        floor = sum(seconds for (_, kind), seconds in shares.items() if kind == MATMUL)
        compiled = (
            f"compiling {self._compile_s:.1f} s of it"
            if self._compile_s
            else "nothing was compiled"
        )
        print(
            f"first step {first:.2f} s ({compiled}), then {1e3 * step:.1f} ms a step, "
            f"{samples / step:.1f} samples/s (median of {self.steps} steps after {WARMUP})"
        )
        print(
            f"where a step goes, forward and backward, in % ({self.steps} more steps, "
            f"{1e3 * with_profiler:.1f} ms each with the profiler)"
        )
        console().print(as_table(shares))
        print(
            "share of the floor, convolutions and matrix products alone: "
            f"{100 * floor / with_profiler:.1f} %"
        )


def mark(module: nn.Module) -> list[RemovableHandle]:
    """Open a range around every part and every layer that is told apart, until handles are removed.

    Args:
        module: What holds a `SAFormer` as `backbone`, or else only layers.
    """
    handles: list[RemovableHandle] = []
    for layer in module.modules():
        kind = next((kind for types, kind in TYPES if isinstance(layer, types)), None)
        if kind is not None:
            handles += _ranged(layer, kind)
    for part, name in _parts(getattr(module, "backbone", None)):
        handles += _ranged(part, name)  # last: around the range of a part that is a single layer
    return handles


def attribute(events: Iterable[FunctionEvent], on_gpu: bool = False) -> Shares:
    """Add up the time of every operation that belongs to a known part of the step.

    Args:
        events: Of the profiler.
        on_gpu: Add up the time of kernels instead of that of the CPU.
    """
    events = list(events)
    forward: dict[tuple[int, int], FunctionEvent] = {}
    for event in sorted(events, key=lambda event: event.time_range.start):
        if event.sequence_nr >= 0 and not event.fwd_thread:
            # The last operation with a number is the one that backward undoes.
            forward[event.thread, event.sequence_nr] = event
    shares: Shares = defaultdict(float)
    for event in events:
        if event.device_type != torch.autograd.DeviceType.CPU:
            continue  # a kernel, which its operation stands for
        part, kind = _place(event, forward)
        if part is not None:
            spent = event.self_device_time_total if on_gpu else event.self_cpu_time_total
            shares[part, kind if part in NETWORK else ELSE] += spent / 1e6
    return dict(shares)


def as_table(shares: Shares) -> Table:
    """Parts of the step by kinds of layers, in percent of all."""
    total = sum(shares.values())
    grid = Table("")
    for name in (*KINDS, "all"):
        grid.add_column(name, justify="right", no_wrap=True)

    def add(label: str, parts: Iterable[str], by_kind: bool) -> None:
        columns = [sum(shares.get((part, kind), 0.0) for part in parts) for kind in KINDS]
        cells = [f"{100 * value / total:.1f}" if value and by_kind else "" for value in columns]
        grid.add_row(label, *cells, f"{100 * sum(columns) / total:.1f}")

    for part in PARTS:
        add(part, [part], by_kind=part in NETWORK)
    grid.add_section()
    add("all of the network", NETWORK, by_kind=True)
    return grid


class _Ranges(Profiler):
    """Lightning's names of what it does, as ranges of the profiler."""

    def __init__(self) -> None:
        super().__init__()
        self._open: dict[str, list[record_function]] = defaultdict(list)

    def start(self, action_name: str) -> None:
        self._open[action_name].append(_enter(action_name))

    def stop(self, action_name: str) -> None:
        if self._open[action_name]:
            self._open[action_name].pop().__exit__(None, None, None)


def _parts(backbone: nn.Module | None) -> list[tuple[nn.Module, str]]:
    """The parts of a backbone; a patch embedding between its blocks is stem too."""
    if backbone is None:
        return []
    found = [(backbone.stem, STEM), (backbone.head_lif, HEAD), (backbone.head, HEAD)]
    for block in backbone.blocks:  # type: ignore[union-attr]
        if not isinstance(block, Block):
            found.append((block, STEM))
            continue
        for name, child in block.named_children():
            found.append((child, ATTENTION if name.startswith("attn") else MLP))
    return found  # type: ignore[return-value]


def _ranged(module: nn.Module, name: str) -> list[RemovableHandle]:
    """A range around the forward pass of a module."""
    open_: list[record_function] = []

    def before(*_: Any) -> None:
        open_.append(_enter(MARK + name))

    def after(*_: Any) -> None:
        open_.pop().__exit__(None, None, None)

    return [
        module.register_forward_pre_hook(before, prepend=True),
        module.register_forward_hook(after),
    ]


def _enter(name: str) -> record_function:
    opened = record_function(name)
    opened.__enter__()
    return opened


def _place(
    event: FunctionEvent | None, forward: dict[tuple[int, int], FunctionEvent]
) -> tuple[str | None, str]:
    """Part and kind of the nearest range around an operation, or around what it is backward to."""
    part, kind = None, ELSE
    while event is not None and part is None:
        name = event.name
        if name.startswith(MARK):
            name = name.removeprefix(MARK)
            if name in KINDS:
                kind = name if kind == ELSE else kind
            else:
                part = name
        else:
            part = next((part for words, part in ACTIONS if words in name), None)
        if part is None and event.fwd_thread:
            before = forward.get((event.fwd_thread, event.sequence_nr))
            if before is not None:
                event = before
                continue
        event = event.cpu_parent
    return part, kind


if __name__ == "__main__":
    main()
