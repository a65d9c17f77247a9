"""How long each table takes on GPUs, estimated: `python -m benchmarks.expected_time`.

No GPU was at hand. What is measured here are operations: multiply-accumulates of one forward pass
of every row, as if dense. The time for them is inferred from two trainings that are known to have
taken a certain time, both at T = 4; a backward pass is taken for twice the forward one.
"""

from dataclasses import replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.report import save, table
from saformer.config.check import check
from saformer.config.overrides import compose
from saformer.config.schema import Config
from saformer.create import build_backbone
from saformer.results.rows import compose_rows
from saformer.results.settings import read_table, table_names, table_path

HOURS = 3600
IMAGES = {  # of training, as each protocol has them: validation is held out where the page says so
    "cifar10": 50_000,
    "cifar100": 50_000,
    "tiny_imagenet": 100_000,
    "imagenet": 1_281_167,
    "cifar10_dvs": 9_000,
    "dvs128_gesture": 1_176,
    "digits": 1_437,
    "digits_events": 1_437,
}
"""Images or recordings of each training set, at most; a held-out validation set makes it less."""
KNOWN: dict[str, dict[str, Any]] = {
    "QKFormer, CIFAR-10: 0.153 s a step of 64 images on one GPU (its log)": {
        "words": ["experiment=cifar10_4_384_t4", "model=qkformer_4_384"],
        "images_per_second": 64 / 0.153,
    },
    "Spikformer-8-512, ImageNet: 8 days on eight V100, 310 epochs (ZK-Zhou/spikformer#12)": {
        "words": ["experiment=imagenet_8_512_t4", "model=spikformer_8_512"],
        "images_per_second": 310 * 1_281_167 / (8 * 24 * HOURS) / 8,
    },
}


def macs(config: Config) -> int:
    """Dense multiply-accumulates of one image through all T, forward."""
    data = config.dataset
    sizes = (data.in_channels, data.image_size, data.image_size)
    network = build_backbone(replace(config, timesteps=1)).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, *sizes))
    flops: int = counter.get_total_flops()
    return config.timesteps * flops // 2


def main() -> None:
    """Operations by row, throughput by what is known, hours by table."""
    known = {
        name: 3 * macs(check(compose(one["words"]))) * one["images_per_second"]
        for name, one in KNOWN.items()
    }
    speed = min(known.values())
    done: dict[str, int] = {}
    hours: dict[str, float] = {}
    runs: dict[str, int] = {}
    for name in table_names():
        described = read_table(table_path(name))
        hours[name], runs[name] = 0.0, 0
        for row in compose_rows(name, described, []):
            config = check(compose(row.words))
            key = f"{config.model} {config.attention} {config.dataset.name} {config.timesteps}"
            done[key] = done.get(key) or macs(config)
            images = IMAGES[config.dataset.name] * config.epochs
            hours[name] += len(row.seeds) * 3 * done[key] * images / speed / HOURS
            runs[name] += len(row.seeds)
    rows = [[name, runs[name], f"{one:.1f}", f"{one / 8:.1f}"] for name, one in hours.items()]
    table(["table", "runs", "hours, one GPU", "hours, eight GPUs"], rows)
    save(
        "expected_time",
        {"macs_per_second": known, "runs": runs, "hours_one_gpu": hours},
    )


if __name__ == "__main__":
    main()
