"""Random images, and untrained networks that spike."""

import torch
from snntorch import Leaky
from torch import nn

from saformer.models.neuron import MultiStepLeaky
from saformer.models.settings import Backend


def images(batch: int = 4, size: int = 8, channels: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, channels, size, size, generator=generator)


def lively(model: nn.Module, size: int = 8) -> nn.Module:
    """Let every layer of an untrained network spike at a middling rate, also in evaluation."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 2.5)
            module.momentum = 1.0  # the running statistics become those of one batch
    with torch.no_grad():
        model.train()(images(16, size))
    return model


def step_by_step(model: nn.Module) -> nn.Module:
    """The same network on the backend that has a membrane between its steps."""
    for module in model.modules():
        if isinstance(module, MultiStepLeaky):
            module.backend = Backend.loop
    return model


def filled(model: nn.Module) -> list[str]:
    """Names of the neurons that kept a membrane."""
    neurons = {name: one for name, one in model.named_modules() if isinstance(one, Leaky)}
    assert neurons
    return [name for name, neuron in neurons.items() if neuron.mem.numel()]
