"""Sets of items that hand out whole batches, and the keys by which they are asked for them.

A key is epoch * len + place, so that whatever is drawn while a batch is made (a crop) can be a
function of seed, epoch and item: neither the number of workers, which live on from one epoch to the
next, nor a restart changes it. B batch, S side of an image.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from saformer.data.image_files import ImageFiles, centre_crop, random_crop, resize
from saformer.data.source import Items
from saformer.errors import DataError

Batch = tuple[Tensor, Tensor]
NOTHING = -1
"""A key without an item; the sets leave it out."""


class EpochSampler(DistributedSampler[int]):
    """Shuffled keys of an epoch.

    torch's sampler also for one process: its order depends on seed and epoch alone.
    """

    def __iter__(self) -> Iterator[int]:
        first = self.epoch * len(self.dataset)  # type: ignore[arg-type]
        return (first + place for place in super().__iter__())


class ShareSampler(DistributedSampler[int]):
    """Every place once, shared among the processes; torch's own repeats some to be even.

    A share that is one short ends with `NOTHING`, so that all processes have the same number of
    batches: they meet in each of them. The last batch of some may hold no item.
    """

    def __iter__(self) -> Iterator[int]:
        size: int = len(self.dataset)  # type: ignore[arg-type]
        places = range(self.rank, size, self.num_replicas)
        return iter([*places, *[NOTHING] * (len(self) - len(places))])

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.num_replicas)  # type: ignore[arg-type]


class ArraySet(Dataset[Batch]):
    """Chosen items of an array; a whole batch is one indexing operation.

    Args:
        x: uint8 [N, ...], in memory or mapped from disk.
        y: Class numbers [N].
        items: Numbers of the items that belong to this set, in the order of an evaluation.
        resident: Hand out item numbers in the place of x, which is on the device already.
    """

    def __init__(self, x: Tensor, y: Tensor, items: Items, resident: bool = False) -> None:
        self.x, self.y, self.resident = x, y, resident
        self.items = torch.from_numpy(items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitems__(self, keys: list[int]) -> Batch:
        items = self.items[[key % len(self) for key in keys if key != NOTHING]]
        # `index_select` copies whole items at once; x[items] is ten times slower on the CPU.
        x = items if self.resident else self.x.index_select(0, items)
        return x, self.y[items]


class ImageSet(Dataset[Batch]):
    """Chosen images that are files; they are decoded, cut and resized where they are fetched.

    Args:
        files: All images of the dataset.
        y: Class numbers [N].
        items: Numbers of the images that belong to this set, in the order of an evaluation.
        seed: Seed of the crops.
        area: Random crop of low..high of an image's area; None for the crop of an evaluation.
    """

    def __init__(
        self,
        files: ImageFiles,
        y: Tensor,
        items: Items,
        seed: int,
        area: tuple[float, float] | None = None,
    ) -> None:
        self.files, self.y, self.seed, self.area = files, y, seed, area
        self.items = torch.from_numpy(items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitems__(self, keys: list[int]) -> Batch | DataError:
        """One batch, uint8 [B, 3, S, S] and class numbers [B].

        The error of a file is returned, for the main process to raise: raised in a worker, torch
        would make a page of traceback of it.
        """
        keys = [key for key in keys if key != NOTHING]
        items = self.items[[key % len(self) for key in keys]]
        epochs = [key // len(self) for key in keys]
        try:
            images = [self._image(*draw) for draw in zip(items.tolist(), epochs, strict=True)]
        except DataError as error:
            return error
        size = self.files.size
        return torch.stack(images) if images else torch.empty(0, 3, size, size), self.y[items]

    def _image(self, item: int, epoch: int) -> Tensor:
        """One square image, uint8 [3, S, S]."""
        image, size = self.files.decode(item), self.files.size
        if self.area is None:
            return centre_crop(image, size, self.files.crop_pct)
        rng = np.random.default_rng((self.seed, epoch, item))
        height, width = image.shape[1:]
        rows, columns = random_crop(height, width, self.area, rng)
        return resize(image[:, rows, columns], size, size)
