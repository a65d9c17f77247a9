"""A small network for every test."""

from collections.abc import Callable

import pytest
import torch
from firing import IMAGES, firing
from torch import nn


@pytest.fixture
def network(backbone) -> Callable:
    """Build a backbone whose neurons fire, in evaluation mode."""

    def call(*overrides: str, images: torch.Tensor = IMAGES) -> nn.Module:
        return firing(backbone("model.dim=16", "model.num_heads=2", *overrides), images)

    return call
