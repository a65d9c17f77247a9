"""Parameter counts to the digit, the cheapest check of an architecture against a publication."""

from dataclasses import replace

import pytest

from saformer.models.settings import DWCPlace

C10 = ("dataset.in_channels=3", "dataset.mean=[0,0,0]", "dataset.std=[1,1,1]")
EVENTS = ("dataset.in_channels=2", "dataset.mean=[0,0]", "dataset.std=[1,1]")
CIFAR = (*C10, "dataset.image_size=32")
TINY = (*C10, "dataset.image_size=64", "model.patch_size=8", "dataset.num_classes=200")
DVS = (*EVENTS, "dataset.image_size=128")

# (preset, input, V removed with bias, without bias, and without bias plus DWC of 3, 5 and 7)
PREDICTED = [
    ("saformer_4_256", CIFAR, 3889962, 3887914, 3899178, 3915562, 3940138),
    ("saformer_2_384", CIFAR, 5467834, 5466298, 5474746, 5487034, 5505466),
    ("saformer_4_384", CIFAR, 8730298, 8727226, 8744122, 8768698, 8805562),
    (
        "saformer_4_384",
        (*CIFAR, "dataset.num_classes=100"),
        *(8764948, 8761876, 8778772, 8803348, 8840212),
    ),
    ("saformer_4_384", TINY, 8803448, 8800376, 8817272, 8841848, 8878712),
    ("saformer_2_256_events", DVS, 2435594, 2434570, 2440202, 2448394, 2460682),
    (
        "saformer_2_256_events",
        (*DVS, "dataset.num_classes=11"),
        *(2435851, 2434827, 2440459, 2448651, 2460939),
    ),
]


def count(model) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("row", PREDICTED, ids=lambda row: f"{row[0]}-{row[2]}")
def test_counts_are_the_predicted_ones(backbone, compose, unweighted, row):
    """Spikformer's count less the value projection, with each DWC, is met to the digit."""
    preset, data, with_bias, plain, *with_dwc = row
    base = (f"model={preset}", *data)
    config = compose(*base)

    def counted(place: DWCPlace, kernel: int = 3, **attention) -> int:
        dwc = replace(config.model.dwc, place=place, kernel_size=kernel)
        changed = {"model": replace(config.model, dwc=dwc)}
        return count(backbone(*base, **changed, attention=replace(config.attention, **attention)))

    assert counted(DWCPlace.none, qkv_bias=True) == with_bias
    assert counted(DWCPlace.none) == plain
    for kernel, expected in zip((3, 5, 7), with_dwc, strict=True):
        for place in (DWCPlace.parallel, DWCPlace.series):
            assert counted(place, kernel) == expected


def test_dwc_in_the_mlp_costs_four_times(backbone):
    """In the MLP the depthwise convolution acts on the hidden width, 4 D."""
    assert count(backbone("model=saformer_4_384", *CIFAR, "model.dwc.place=mlp")) == 8794810


def test_the_membrane_and_the_sew_residual_cost_the_same(backbone):
    """The residual kind moves neurons, not weights."""
    sew = count(backbone("model.residual=sew"))
    assert sew == count(backbone("model.residual=membrane"))


def test_a_projection_that_nothing_reads_is_not_built(backbone):
    """With the mask from k alone and x gated, the query costs nothing."""
    full = count(backbone("model.dwc.place=none"))
    dim = 64
    no_query = backbone("attention.weights=k", "attention.apply_to=x", "model.dwc.place=none")
    assert full - count(no_query) == dim * dim + 2 * dim


def test_tiny_is_about_a_tenth_of_a_million(backbone):
    """The default model is as small as it says."""
    assert 80_000 < count(backbone()) < 130_000
