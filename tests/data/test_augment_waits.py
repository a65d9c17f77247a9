"""Augmentation on a GPU lets the CPU go on: no number is read off the device."""

from types import SimpleNamespace

import pytest
import torch

from saformer.data import randaugment
from saformer.data.augment import mix
from saformer.data.policy import parse_policy
from saformer.data.randaugment import OPERATIONS, on_host, rand_augment
from saformer.data.settings import AugmentConfig

# A number cannot be read off the device "meta"; no generator can be made for it, nor here for CUDA.
DEVICE = SimpleNamespace(device=torch.device("cuda", 0), initial_seed=lambda: 7)


def images():
    return torch.empty(4, 3, 16, 16, device="meta")


def test_a_generator_of_the_cpu_is_taken_as_it_is():
    """There it goes on from its state; for one of a device one of the same seed is made."""
    ours = torch.Generator().manual_seed(7)
    assert on_host(ours) is ours
    assert torch.equal(torch.rand(9, generator=on_host(DEVICE)), torch.rand(9, generator=ours))


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixing_reads_nothing_off_the_device(kind):
    """The share of the partner is known without asking the device."""
    labels = torch.zeros(4, dtype=torch.int64, device="meta")
    x, targets = mix(images(), labels, 10, AugmentConfig(**{kind: 1.0}), DEVICE)
    assert x.is_meta and targets.shape == (4, 10)


def test_randaugment_reads_nothing_off_the_device():
    """Neither what is done nor how far is asked of the device."""
    assert rand_augment(images(), parse_policy("rand-m9-n2-p1"), 1, DEVICE).is_meta


@pytest.mark.parametrize("name", ["Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"])
def test_maps_are_copied_without_waiting(monkeypatch, name):
    """A map goes to the device in a copy that nothing waits for."""
    copies, to = [], torch.Tensor.to

    def noted(x, device, **options):
        copies.append(options)
        return to(x, device, **options)

    monkeypatch.setattr(randaugment, "warp", lambda x, theta, fill: x)
    monkeypatch.setattr(torch.Tensor, "to", noted)
    assert OPERATIONS[name](images(), 0.1).is_meta
    assert copies == [{"non_blocking": True}]
