"""SASA computes the mask that docs/model.md writes down."""

import pytest
import torch
from lively import images, lively

from saformer.models.attention.aggregation import CHANNELS, TOKENS, SpikeAggregation
from saformer.models.attention.sasa import SASA
from saformer.models.attention.settings import AttentionConfig, Operator, Threshold
from saformer.models.settings import NeuronConfig


def spikes(rate: float = 0.3) -> torch.Tensor:
    """Head-split spikes [T=1, B=2, h=3, d=4, N=5]: one step, so that a mask is one comparison."""
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(1, 2, 3, 4, 5, generator=generator) < rate).float()


@pytest.mark.parametrize(("dim", "length"), [(CHANNELS, 4), (TOKENS, 5)])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_sum_opens_the_gate_at_its_threshold(dim, length, count):
    """One step of tau 2 halves the sum, so v_threshold c/2 opens for c spikes and not for fewer."""
    config = AttentionConfig(v_threshold=count / 2)
    mask = SpikeAggregation(dim, length, config, NeuronConfig())(spikes())
    assert torch.equal(mask, (spikes().sum(dim, keepdim=True) >= count).float())


@pytest.mark.parametrize(("dim", "length"), [(CHANNELS, 4), (TOKENS, 5)])
def test_a_maximum_opens_for_any_spike(dim, length):
    """The maximum is an OR: with the default threshold one spike is enough."""
    config = AttentionConfig(operator=Operator.max)
    mask = SpikeAggregation(dim, length, config, NeuronConfig())(spikes())
    assert torch.equal(mask, spikes().any(dim, keepdim=True).float())


@pytest.mark.parametrize("operator", list(Operator))
def test_a_fraction_is_of_the_largest_aggregate(operator):
    """With `fraction` the same value means the same share for sum and mean."""
    config = AttentionConfig(operator=operator, threshold=Threshold.fraction, v_threshold=0.2)
    mask = SpikeAggregation(TOKENS, 5, config, NeuronConfig())(spikes())
    counts = spikes().sum(TOKENS, keepdim=True)
    # tau 2 halves the input: a share of 0.2 of 5 tokens needs 2 spikes; an OR reaches 1 at once.
    needed = 1 if operator is Operator.max else 2
    assert torch.equal(mask, (counts >= needed).float())


def test_a_learnable_threshold_has_a_gradient():
    """The threshold of the mask is learned when asked for."""
    config = AttentionConfig(threshold=Threshold.learnable)
    aggregation = SpikeAggregation(TOKENS, 5, config, NeuronConfig())
    aggregation(spikes().requires_grad_()).sum().backward()
    (threshold,) = aggregation.parameters()
    assert threshold.ndim == 0
    assert threshold.grad is not None and threshold.grad != 0


@pytest.mark.parametrize("aggregate", ["channels", "tokens", "both"])
def test_a_mean_of_ones_is_one(backbone, aggregate):
    """Each mask of SASA divides by as many as it sums: channels of a head, or tokens."""
    model = backbone("attention.operator=mean", f"attention.aggregate={aggregate}")
    masks = [module for module in model.modules() if isinstance(module, SpikeAggregation)]
    means = []
    for mask in masks:
        mask.register_forward_pre_hook(lambda _mask, args: (torch.ones_like(args[0]),))
        mask.lif.register_forward_pre_hook(lambda _lif, args: means.append(args[0]))
    model(images())
    assert len(means) == len(masks) > 0
    assert all(torch.allclose(mean, torch.ones_like(mean)) for mean in means)


@pytest.mark.parametrize("place", ["parallel", "series", "mlp", "none"])
def test_keys_are_made_only_where_they_are_read(backbone, place):
    """Where queries gate queries, only a convolution beside the attention reads keys."""
    reading = ("attention.weights=q", "attention.apply_to=q")
    model = backbone(*reading, f"model.dwc.place={place}")
    found = [module for module in model.modules() if isinstance(module, SASA)]
    assert {module.k is not None for module in found} == {place == "parallel"}


def test_the_convolution_is_added_to_what_is_gated(backbone):
    """The neuron behind a parallel DWC is given y + BN(DW(u))."""
    model = lively(backbone("model.dwc.place=parallel")).eval()
    branch = next(module for module in model.modules() if isinstance(module, SASA))
    given = []
    for module in (branch, branch.lif_parallel):
        module.register_forward_pre_hook(lambda _module, args: given.append(args[0]))
    with torch.no_grad():
        model(images())
        x, added = given
        y, u = branch.attend(branch.lif_in(x))
        assert u.any() and torch.equal(added, y + branch.dwc_parallel(u))
