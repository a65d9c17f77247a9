"""A training step, ours beside its peers' and its floors: `python -m benchmarks.train_step`.

Spikformer-4-384 at 32 px: ours, SpikingJelly's own, ours with stock snn.Leaky stepped over time;
as floors ours without its neurons, and a plain ViT of the same shape, which knows neither spikes
nor time. A step is forward, cross-entropy on the mean over T, backward, AdamW. All take turns in
one process, so that ratios, which are medians of the ratios of each round, hold on a busy machine;
peak memory is measured before, in a process each.

`--scaling` goes through T and batch sizes instead, for fewer networks, and draws how time and
memory grow. It takes most of an hour on two cores, and skips what needs more memory than is free.

With a GPU everything runs there; no result here comes from one yet.
"""

import argparse
import os
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from benchmarks.networks import NETWORKS, Case
from benchmarks.report import results_folder, save, table
from benchmarks.trainee import Trainee, free_mib, measure_peak

REFERENCES = ("ours", "ours-compile")
SCALED = ("ours", "ours-lean", "sj", "snn-loop", "identity")
"""Networks of --scaling: compiling SpikingJelly's anew for each size would take hours."""
TIMESTEPS, BATCHES = (1, 2, 4, 8, 16), (16, 64, 256)
SPARE = 0.9
"""Of the free memory, what a step may be expected to take."""
SETTINGS: list[str] = []
"""Of all networks; what a test makes small."""


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median of the ratios of each round."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def expected_mib(peak: float, measured: Case, case: Case) -> float:
    """Memory of a step from that of another: it grows with T and batch.

    Args:
        peak: MiB of the other.
        measured: The other.
        case: The one that is asked for.
    """
    return peak * case.timesteps * case.batch / (measured.timesteps * measured.batch)


def take_turns(trainees: dict[str, Trainee], rounds: int) -> dict[str, dict[str, Any]]:
    """Seconds of the first step, which compiles, and of those of each round, in turns.

    Args:
        trainees: By name.
        rounds: Steps of each, after two to warm up.
    """
    first = {name: trainee.step() for name, trainee in trainees.items()}
    for trainee in trainees.values():
        trainee.step()
    times: dict[str, list[float]] = {name: [] for name in trainees}
    names = list(trainees)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            times[name].append(trainees[name].step())
    return {name: {"first_s": first[name], "all_s": times[name]} for name in trainees}


def compare(names: Sequence[str], case: Case, rounds: int) -> dict[str, dict[str, Any]]:
    """Time and peak memory of networks, by name; a network that does not fit has no time.

    Args:
        names: Of the networks.
        case: What is trained.
        rounds: Steps of each.
    """
    measured: dict[str, dict[str, Any]] = {}
    for name in names:
        print(
            f"T={case.timesteps}, batch {case.batch}: memory of {NETWORKS[name].label}", flush=True
        )
        found = measure_peak(name, case)
        measured[name] = found or {"skipped": "killed, for want of memory"}
    fitting = [name for name in names if "skipped" not in measured[name]]
    print(f"T={case.timesteps}, batch {case.batch}: {rounds} rounds", flush=True)
    timed = take_turns({name: Trainee(name, case) for name in fitting}, rounds)
    for name, times in timed.items():
        median = statistics.median(times["all_s"])
        measured[name] |= {**times, "median_s": median, "samples_per_s": case.batch / median}
    for reference in (name for name in REFERENCES if name in timed):
        base = timed[reference]["all_s"]
        for name, times in timed.items():
            measured[name][f"time_over_{reference}"] = median_ratio(times["all_s"], base)
    return measured


def rows(measured: dict[str, dict[str, Any]]) -> list[list[str]]:
    """What `table` shows of a comparison."""
    sj = measured.get("sj", {}).get("peak_MiB")
    lines = []
    for name, one in measured.items():
        label = NETWORKS[name].label
        if "skipped" in one:
            lines.append([label, one["skipped"]])
            continue
        ratios = [one.get(f"time_over_{reference}") for reference in REFERENCES]
        lines.append(
            [
                label,
                f"{one['parameters'] / 1e6:.2f}",
                f"{1e3 * one['median_s']:.0f}",
                f"{one['samples_per_s']:.2f}",
                *(f"{ratio:.2f}" if ratio else "" for ratio in ratios),
                f"{one['first_s']:.1f}",
                f"{one['peak_MiB']:.0f}",
                f"{one['peak_MiB'] / sj:.2f}" if sj else "",
            ]
        )
    return lines


HEADER = [
    *("network", "M params", "ms", "samples/s", "/ torch", "/ compile", "first s", "peak MiB"),
    "/ SpikingJelly",
]
LEGEND = (
    "ms: a step, median of the rounds; / torch, / compile: over the time of ours on this backend;\n"
    "peak: above weights, gradients and optimizer state; / SpikingJelly: over the peak of its own"
)


def scale(names: Sequence[str], case: Case, rounds: int) -> list[dict[str, Any]]:
    """Comparisons over T and batch sizes, from the smallest to the largest that fits.

    Args:
        names: Of the networks.
        case: All but T and batch.
        rounds: Steps of each.
    """
    grid = [replace(case, timesteps=T, batch=batch) for T in TIMESTEPS for batch in BATCHES]
    last: dict[str, tuple[float, Case]] = {}
    cells = []
    for one in sorted(grid, key=lambda one: (one.timesteps * one.batch, one.batch)):
        free = free_mib()
        needed = {name: expected_mib(*last[name], one) for name in names if name in last}
        large = {name: mib for name, mib in needed.items() if mib > SPARE * free}
        fitting = [name for name in names if name not in large]
        measured = compare(fitting, one, rounds) if fitting else {}
        for name, found in measured.items():
            if "peak_MiB" in found:
                last[name] = found["peak_MiB"], one
        for name, mib in large.items():
            words = f"skipped: needs about {mib / 1024:.0f} GiB, {free / 1024:.0f} GiB are free"
            measured[name] = {"skipped": words}
        table(HEADER, rows(measured))
        cells.append({"timesteps": one.timesteps, "batch": one.batch, "networks": measured})
    print(LEGEND)
    return cells


def main() -> None:
    """Measure, print a table, write benchmarks/results/<kind>/train_step*.json and the figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--timesteps", type=int, default=4)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--input",
        choices=("images", "events"),
        default="images",
        help="images shown T times, or T frames of two channels; 32 px both",
    )
    parser.add_argument("--bf16", action="store_true", help="autocast; slow on most CPUs")
    parser.add_argument("--scaling", action="store_true", help="over T and batch sizes")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, help="all, but for --scaling")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    case = Case(
        timesteps=args.timesteps,
        batch=args.batch,
        events=args.input == "events",
        bf16=args.bf16,
        threads=args.threads,
        settings=SETTINGS,
    )
    name = "train_step" if args.input == "images" else "train_step_events"
    facts = {
        **vars(args),
        "networks": args.networks or list(SCALED if args.scaling else NETWORKS),
    }
    if args.scaling:
        del facts["timesteps"], facts["batch"]
        cells = scale(facts["networks"], case, args.rounds)
        save(f"{name}_scaling", {**facts, "cells": cells})
        from benchmarks.scaling_figure import draw

        for file in draw(cells, results_folder(), f"{name}_scaling"):
            print(f"wrote {os.path.relpath(file)}")
        return
    measured = compare(facts["networks"], case, args.rounds)
    table(HEADER, rows(measured))
    print(LEGEND)
    save(name, {**facts, "measured": measured})


if __name__ == "__main__":
    main()
