"""A network in training, and the peak memory of one of its steps in a process of its own.

Run as `python -m benchmarks.trainee NAME CASE` it prints, as JSON, the parameters of a network and
the peak memory of a step above weights, gradients and optimizer state. On a GPU that is what the
allocator says; elsewhere the peak of the process's resident memory, which wants Linux, above that
before the step. There `MALLOC_MMAP_THRESHOLD_` makes the C library give freed memory back at once.
"""

import ctypes
import gc
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.networks import NETWORKS, Case, composed, device, now

GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536"}
OUT_OF_MEMORY = 77
"""Exit code of a process whose GPU had too little."""
MIB = 2**20


class Trainee:
    """A network with its optimizer and one batch, which is trained on, on a GPU if there is one.

    Args:
        name: Of the network.
        case: What is trained.
    """

    def __init__(self, name: str, case: Case) -> None:
        torch.manual_seed(0)
        on, config = device(), composed(case)
        self.bf16 = case.bf16
        network = NETWORKS[name].build(case)
        self.module, self.between = network.module.to(on).train(), network.between
        optim = config.optimizer
        self.optimizer = torch.optim.AdamW(
            self.module.parameters(), lr=optim.lr, weight_decay=optim.weight_decay
        )
        frames = (case.timesteps,) if case.events else ()
        side = config.dataset.image_size
        shape = (case.batch, *frames, case.channels, side, side)
        # Counts of events are small whole numbers, most of them zero.
        x = torch.poisson(torch.full(shape, 0.2)) if case.events else torch.randn(shape)
        self.x = x.to(on)
        self.y = torch.randint(config.dataset.num_classes, (case.batch,), device=on)

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.module.parameters())

    def step(self, keep_gradients: bool = False) -> float:
        """Forward, loss on the mean over T, backward, AdamW; returns seconds of wall time."""
        start = now(self.x)
        with torch.autocast(self.x.device.type, torch.bfloat16, enabled=self.bf16):
            loss = F.cross_entropy(self.module(self.x).mean(0), self.y)
        loss.backward()
        self.between()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=not keep_gradients)
        return now(self.x) - start

    def peak(self) -> float:
        """MiB of a step above what lies there before it: weights, gradients, optimizer state."""
        for _ in range(2):
            self.step(keep_gradients=True)
        if self.x.is_cuda:
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            self.step(keep_gradients=True)
            return (torch.cuda.max_memory_allocated() - before) / MIB
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        resident = status("VmRSS")
        self.step(keep_gradients=True)
        return (status("VmHWM") - resident) / 1024


def status(name: str) -> int:
    """KiB of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def measure_peak(name: str, case: Case) -> dict[str, Any] | None:
    """Parameters and `peak_MiB` of a network, or None if the machine has too little memory.

    Args:
        name: Of the network.
        case: What is trained.
    """
    command = [sys.executable, "-m", "benchmarks.trainee", name, json.dumps(asdict(case))]
    root = Path(__file__).parents[1]
    done = subprocess.run(
        command, env={**os.environ, **GIVE_BACK}, capture_output=True, text=True, cwd=root
    )
    if done.returncode in (-9, OUT_OF_MEMORY):  # killed by the system
        return None
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr}")
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def free_mib() -> float:
    """MiB that a training can take, once this process has given back what it has freed."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info()[0] / MIB
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc keeps it for itself
        trim(0)
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) / 1024


def main() -> None:
    name, case = sys.argv[1], Case(**json.loads(sys.argv[2]))
    torch.set_num_threads(case.threads)
    try:
        trainee = Trainee(name, case)
        peak = trainee.peak()
    except torch.OutOfMemoryError:
        sys.exit(OUT_OF_MEMORY)
    print(json.dumps({"parameters": trainee.parameters, "peak_MiB": peak}))


if __name__ == "__main__":
    main()
