"""Recordings to frames, and frames to batches: `python -m benchmarks.event_frames`.

Side by side with SpikingJelly, on one thread and on the same AEDAT 2.0 files in the layout of
CIFAR10-DVS. They are generated: points of random outlines on a diamond-shaped path, 169,000 events
in 1.2 s, as many as its recordings have.

- Preparation, from the files to frames on disk. Ours is the whole of what a first run does: index
  and checks, frames, cache, flush. SpikingJelly's is what its `CIFAR10DVS` calls for each file, but
  without threads: events to a compressed npz, that to a compressed npz of float64 frames.
- Batches of random recordings, as in a second epoch: the files are in the page cache, and ours is
  mapped. Ours come as uint8, to be converted on the device; a row shows them converted on the CPU.
  SpikingJelly's are its npz files, read as float32 and stacked.

Rounds are interleaved, so that ratios hold on a busy machine. A GPU is not used.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from spikingjelly.datasets import base, cifar10_dvs, utils

from benchmarks.report import save, table
from saformer.data.events import Events
from saformer.data.readers import read
from saformer.data.readers.aedat2 import SENSOR, write_aedat2
from saformer.data.sets import ArraySet
from saformer.data.settings import DatasetConfig, EventConfig, Split
from saformer.data.source import Source

T = 16
SECONDS = 1.2
CLASSES = ("airplane", "automobile")


def moving_edges(seed: int, count: int) -> Events:
    """What a camera sends of outlines that go round a diamond of 16 pixels, six times."""
    rng = np.random.default_rng(seed)
    t = np.sort(rng.integers(0, int(SECONDS * 1e6), count))
    phase = t / (SECONDS * 1e6) * 6 % 1
    corners = np.array([(-8, 0), (0, 8), (8, 0), (0, -8), (-8, 0)])
    shift = np.stack([np.interp(4 * phase, np.arange(5), axis) for axis in corners.T])
    heading = np.diff(corners, axis=0)[(4 * phase).astype(int)].T
    outline, angle = rng.integers(0, 12, count), rng.uniform(0, 2 * np.pi, count)
    centre, radius = rng.uniform(24, 104, (2, 12)), rng.uniform(4, 28, 12)
    normal = np.stack([np.cos(angle), np.sin(angle)])
    place = centre[:, outline] + radius[outline] * normal + shift + rng.normal(0, 0.6, (2, count))
    x, y = place.round().astype(int).clip(0, SENSOR - 1)
    return Events(t=t, x=x, y=y, p=((heading * normal).sum(0) > 0).astype(int))


def config(root: Path, cache_dir: Path) -> DatasetConfig:
    """The dataset as its configuration has it, but with fewer recordings."""
    return DatasetConfig(
        name="cifar10_dvs",
        root=str(root),
        num_classes=10,
        in_channels=2,
        image_size=SENSOR,
        mean=[0.0, 0.0],
        std=[1.0, 1.0],
        split=Split.stratified_seeded,
        cache_dir=str(cache_dir),
        allow_incomplete=True,
        events=EventConfig(),
    )


def layout(root: Path, files: list[Path], count: int) -> Path:
    """A folder in the layout of the dataset: `count` recordings, the files over and over."""
    for i in range(count):
        name, number = CLASSES[i % 2], i // 2
        path = root / name / f"cifar10_{name}_{number}.aedat"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(files[i % len(files)], path)
    return root


def spikingjelly_prepares(files: list[Path], folder: Path) -> list[Path]:
    """Its two steps for each file."""
    frames = []
    (folder / "frames").mkdir(parents=True)
    for path in files:
        events = folder / f"{path.stem}.npz"
        cifar10_dvs._read_aedat_save_to_np(path, events)
        utils.integrate_events_file_to_frames_file_by_fixed_frames_number(
            base._load_events, events, folder / "frames", "number", T, SENSOR, SENSOR
        )
        frames.append(folder / "frames" / events.name)
    return frames


def spikingjelly_batch(frames: list[Path], items: list[int]) -> torch.Tensor:
    """Recordings as its dataset reads them, stacked as a loader does."""
    paths = [frames[i % len(frames)] for i in items]
    return torch.stack([torch.from_numpy(utils.load_npz_frames(path)) for path in paths])


def as_floats(ours: ArraySet, items: list[int]) -> torch.Tensor:
    """A batch of ours, converted on the CPU."""
    return ours.__getitems__(items)[0].float()


def fetch_all(fetch: Callable[[list[int]], object], batches: list[list[int]]) -> None:
    """Fetch batches and drop them, as a training does."""
    for items in batches:
        fetch(items)


def seconds(work: Callable[[], object]) -> float:
    """Wall time."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def prepare(files: list[Path], folder: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds a recording, round by round; each round makes everything anew."""
    root = layout(folder / "root", files, len(files))
    times: dict[str, list[float]] = {"saformer": [], "SpikingJelly": []}
    for i in range(rounds):
        works: dict[str, Callable[[], object]] = {
            "saformer": partial(read, config(root, folder / f"cache{i}"), T),
            "SpikingJelly": partial(spikingjelly_prepares, files, folder / f"theirs{i}"),
        }
        for name, work in works.items():
            times[name].append(seconds(work) / len(files))
    return times


def batches(
    x: torch.Tensor, frames: list[Path], batch_size: int, rounds: int
) -> dict[str, list[float]]:
    """Seconds a recording in batches of random ones; a round fetches four after another.

    Args:
        x: Our frames, mapped from the cache [N, T, 2, H, W].
        frames: SpikingJelly's files.
        batch_size: Recordings of a batch.
        rounds: How often one is fetched.
    """
    ours = ArraySet(x, torch.zeros(len(x), dtype=torch.int64), np.arange(len(x)))
    for item in range(len(x)):  # the first epoch
        ours.__getitems__([item])
    rng = np.random.default_rng(batch_size)
    times: dict[str, list[float]] = {"saformer": [], "saformer, float32": [], "SpikingJelly": []}
    for _ in range(rounds):
        chosen = rng.choice(len(x), (4, batch_size), replace=False).tolist()
        fetches: dict[str, Callable[[list[int]], object]] = {
            "saformer": ours.__getitems__,
            "saformer, float32": partial(as_floats, ours),
            "SpikingJelly": partial(spikingjelly_batch, frames),
        }
        for name, fetch in fetches.items():
            times[name].append(seconds(partial(fetch_all, fetch, chosen)) / (4 * batch_size))
    return times


def layout_order(source: Source, files: int) -> list[int]:
    """Items of `layout`'s first recordings, in the order of their files."""
    assert source.names is not None
    names = {name: item for item, name in enumerate(source.names)}
    return [names[f"cifar10_{CLASSES[i % 2]}_{i // 2}"] for i in range(files)]


def main() -> None:
    """Measure, print a table, write benchmarks/results/<kind>/event_frames.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=32)
    parser.add_argument("--events", type=int, default=169_000)
    parser.add_argument("--recordings", type=int, default=256, help="in the cache of the batches")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = [folder / f"{i}.aedat" for i in range(args.files)]
        for i, path in enumerate(files):
            write_aedat2(path, moving_edges(i, args.events))
        times = {f"prepare, T={T}": prepare(files, folder, args.rounds)}
        frames = sorted((folder / "theirs0" / "frames").iterdir(), key=lambda path: int(path.stem))
        many = layout(folder / "many", files, args.recordings)
        source = read(config(many, folder / "cache"), T)
        x = source.x
        assert isinstance(x, torch.Tensor)
        same = x[layout_order(source, args.files)]
        assert (spikingjelly_batch(frames, list(range(args.files))) == same).all()
        filled = (same > 0).float().mean().item()
        for batch_size in (16, 32):
            times[f"batch of {batch_size}"] = batches(x, frames, batch_size, 2 * args.rounds)
    result = {}
    rows = []
    for part, by_name in times.items():
        theirs = by_name["SpikingJelly"]
        for name, values in by_name.items():
            speedup = statistics.median(a / b for a, b in zip(theirs, values, strict=True))
            median = statistics.median(values)
            result[f"{part}: {name}"] = {"median_s": median, "speedup": speedup}
            rows.append([part, name, f"{1e3 * median:.3f}", f"{1 / median:.0f}", f"{speedup:.1f}"])
    table(["", "", "ms a recording", "recordings/s", "times faster"], rows)
    save("event_frames", {**vars(args), "cells_filled": filled, **result}, on_cpu=True)


if __name__ == "__main__":
    main()
