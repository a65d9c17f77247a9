"""Small classifiers whose neurons fire, and checkpoints of them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from saformer.classifier import Classifier
from saformer.config.check import to_dict


@pytest.fixture
def bytes_of() -> Callable:
    """Random input of a classifier, as a user has it: uint8, pixels or small counts."""

    def call(classifier: Classifier, batch: int) -> Tensor:
        data, generator = classifier.config.dataset, torch.Generator().manual_seed(batch)
        size = (data.in_channels, data.image_size, data.image_size)
        if data.events is not None:
            size = (classifier.timesteps, *size)
        most = 256 if data.events is None else 4
        return torch.randint(0, most, (batch, *size), dtype=torch.uint8, generator=generator)

    return call


@pytest.fixture
def classifier(compose: Callable, bytes_of: Callable) -> Callable:
    """An untrained classifier that spikes at a middling rate, in evaluation mode."""

    def call(*overrides: str) -> Classifier:
        torch.manual_seed(0)
        made = Classifier(compose(*overrides))
        for norm in made.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.momentum = 1.0  # the running statistics become those of one batch
                nn.init.uniform_(norm.weight, 1.5, 3.5)
                nn.init.normal_(norm.bias, std=0.3)
        with torch.no_grad():
            made.train()(bytes_of(made, 16))
            made.backbone.head.weight.mul_(20)
        return made.eval()

    return call


@pytest.fixture
def checkpoint(classifier: Callable) -> Callable:
    """The same as a checkpoint of a run."""

    def call(*overrides: str) -> Path:
        made = classifier(*overrides)
        saved = {"config": to_dict(made.config)}
        content = {"state_dict": made.state_dict(), "hyper_parameters": saved}
        torch.save(content, "best.ckpt")
        return Path("best.ckpt")

    return call
