"""CIFAR batches, ours beside PIL image by image: `python -m benchmarks.data`.

The peers' way is a `DataLoader` over PIL images with torchvision's transforms, one image at a time;
ours is the loader of `SpikingDataModule` over one uint8 array, with augmentation in batches. Both
do the same things to the same 10,000 generated images, on one thread and in one process, and end in
normalised float batches. Rounds are interleaved, so that ratios hold on a busy machine. All of it
runs on the CPU, also where there is a GPU.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.report import save, table
from saformer.data.augment import augment, crop_flip, erase
from saformer.data.sets import ArraySet
from saformer.data.settings import AugmentConfig

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
# Both apply two operations to every image (timm's string means one in two without p1).
RECIPES = {
    "crop, flip": AugmentConfig(crop_padding=4, hflip=0.5),
    "crop, flip, RandAugment, erase": AugmentConfig(
        crop_padding=4, hflip=0.5, randaugment="rand-m9-n2-p1", erase=0.25
    ),
}


class PILSet(Dataset[tuple[Tensor, int]]):
    """One image at a time, as torchvision's CIFAR10 gives them.

    Args:
        images: uint8 [N, H, W, 3].
        transform: From a PIL image to a normalised tensor.
    """

    def __init__(self, images: np.ndarray, transform: Callable[[Image.Image], Tensor]) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), 0


def per_image(recipe: AugmentConfig) -> transforms.Compose:
    """The recipe in torchvision's transforms."""
    steps: list[object] = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    if recipe.randaugment:
        steps.append(transforms.RandAugment(num_ops=2, magnitude=9))
    steps += [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    if recipe.erase:
        steps.append(transforms.RandomErasing(recipe.erase))
    return transforms.Compose(steps)


def batches(loader: DataLoader[tuple[Tensor, Tensor]], recipe: AugmentConfig) -> Iterator[Tensor]:
    """What `SpikingDataModule` makes of its loader's batches in training."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (MEAN, STD))
    draws = torch.Generator().manual_seed(0)
    for x, _ in loader:
        x = crop_flip(x, recipe, draws).float().div_(255)
        x = (augment(x, recipe, draws) - mean).div_(std)
        yield erase(x, recipe, draws)


def images_per_second(batches: Iterator[Tensor]) -> float:
    """Pass over all batches once."""
    start, count = time.perf_counter(), 0
    for x in batches:
        count += len(x)
    return count / (time.perf_counter() - start)


def main() -> None:
    """Measure, print a table, write benchmarks/results/<kind>/data.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=128)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    # Smooth in space, so that Equalize and AutoContrast meet histograms like those of photographs.
    coarse = rng.integers(0, 256, (args.images, 3, 8, 8), dtype=np.uint8)
    x = torch.nn.functional.interpolate(
        torch.from_numpy(coarse).float(), size=32, mode="bilinear"
    ).to(torch.uint8)
    rows = x.permute(0, 2, 3, 1).contiguous().numpy()
    array = ArraySet(x, torch.zeros(args.images, dtype=torch.int64), np.arange(args.images))
    result: dict[str, dict[str, Any]] = {}
    for name, recipe in RECIPES.items():
        pil = DataLoader(PILSet(rows, per_image(recipe)), args.batch, shuffle=True)
        ours = DataLoader(array, args.batch, shuffle=True, collate_fn=lambda batch: batch)
        speeds: dict[str, list[float]] = {"PIL": [], "ours": []}
        for i in range(args.rounds + 1):
            measured = {
                "PIL": images_per_second(x for x, _ in pil),
                "ours": images_per_second(batches(ours, recipe)),
            }
            for way, speed in measured.items():
                if i:  # the first round warms up
                    speeds[way].append(speed)
        ratios = [ours / pil for ours, pil in zip(speeds["ours"], speeds["PIL"], strict=True)]
        result[name] = {
            "images_per_second": {way: statistics.median(values) for way, values in speeds.items()},
            "times_faster": statistics.median(ratios),
            "all": speeds,
        }
    table(
        ["augmentation", "PIL img/s", "ours img/s", "times faster"],
        [
            [name, *(f"{v:.0f}" for v in row["images_per_second"].values()),
             f"{row['times_faster']:.1f}"]
            for name, row in result.items()
        ],
    )  # fmt: skip
    save("data", {**vars(args), "threads": 1, "recipes": result}, on_cpu=True)


if __name__ == "__main__":
    main()
