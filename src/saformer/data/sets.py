"""Datasets that return whole batches, and the samplers that produce their keys.

A key is epoch * len + place. Because the key contains the epoch, a random crop can be a function of
seed, epoch and item. It therefore depends neither on the number of workers (which live on from one
epoch to the next) nor on a restart. B batch, S side of an image.
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
"""A key that stands for no item; the datasets skip it."""


class EpochSampler(DistributedSampler[int]):
    """Shuffled keys of an epoch.

    We use torch's distributed sampler even for one process, because its order depends only on seed
    and epoch.
    """

    def __iter__(self) -> Iterator[int]:
        first = self.epoch * len(self.dataset)  # type: ignore[arg-type]
        return (first + place for place in super().__iter__())


class ShareSampler(DistributedSampler[int]):
    """Divide all places among the processes, each place once; torch's sampler would repeat some.

    A share that is one item short ends with `NOTHING`, because the processes synchronise in every
    batch and so need the same number of batches. The last batch of a process may hold no item.
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
        resident: Return item numbers instead of x, because x is already on the device.
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
    """Chosen images that are files; the worker that fetches them decodes, crops and resizes them.

    Args:
        files: All images of the dataset.
        y: Class numbers [N].
        items: Numbers of the images that belong to this set, in the order of an evaluation.
        seed: Seed of the crops.
        area: Smallest and largest share of the image's area that a random crop keeps; None takes
            the centre crop of an evaluation.
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

        If a file cannot be decoded, the error is returned and the main process raises it. Raised in
        a worker, it would reach the user as a page of traceback.
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
