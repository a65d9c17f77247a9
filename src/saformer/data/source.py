"""The type that every reader returns: all items of a dataset, their classes and the test set."""

import hashlib
import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saformer.data.image_files import ImageFiles

Items = NDArray[np.int64]


@dataclass(frozen=True)
class Source:
    """A whole dataset: in memory, mapped from disk, or as files to decode."""

    x: Tensor | ImageFiles
    """Images uint8 [N, C, H, W], or their files; or event frames [N, T, 2, H, W]."""
    y: Tensor
    """Class numbers int64 [N]."""
    train: Items
    """Numbers of the items for training and validation."""
    test: Items
    """Numbers of the items for testing."""
    names: list[str] | None = None
    """Unique name of each item, if items have names; the digest of a split is made of them."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Plain values that run.json records about the files."""

    @property
    def digest_of(self) -> str:
        """Which properties of the items the digest of a split is computed from."""
        nameless = self.names is None and isinstance(self.x, Tensor)
        return "class and bytes" if nameless else "class and name"

    def identify(self, item: int) -> str:
        """Identify an item independently of its position: by name, else by file, else by bytes."""
        if self.names is not None:
            return self.names[item]
        if isinstance(self.x, ImageFiles):
            return os.fsdecode(self.x.files[item])
        values = self.x[item].contiguous().view(-1).view(torch.uint8)
        return hashlib.sha256(values.numpy().data).hexdigest()


def in_two_parts(train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor) -> Source:
    """Make a source of a dataset that was published as a training and a test set."""
    numbers = np.arange(len(train_y) + len(test_y))
    return Source(
        x=torch.cat([train_x, test_x]),
        y=torch.cat([train_y, test_y]),
        train=numbers[: len(train_y)],
        test=numbers[len(train_y) :],
    )
