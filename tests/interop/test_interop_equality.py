"""A converted checkpoint computes what the original computes, and nothing else would."""

import re

import pytest
import torch
from mostly_slow import mostly_slow
from originals_small import CASES, Case, images, original, ours, watched

from saformer.interop.convert import convert

LEAKING = [name for name in CASES if name.startswith("qkformer")]


def logits(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return module(x)


def of_ours(compose, case: Case, weights: dict, *changes: str) -> torch.Tensor:
    """Logits of ours with converted weights, computed under some changed settings."""
    state = convert(weights, ours(compose, *case.overrides)).state_dict
    module = ours(compose, *case.overrides, *changes)
    layers = {n: tensor for n, tensor in state.items() if re.search(r"\.(conv|bn|head)\.", n)}
    module.load_state_dict({**module.state_dict(), **layers})  # without constants of neurons
    return logits(module, images(case))


@pytest.mark.parametrize("name", mostly_slow(CASES, 2))
def test_the_logits_are_those_of_the_original(compose, name):
    """Every file of the originals: random weights and statistics, equal logits in float64."""
    case = CASES[name]
    net = original(name)
    expected, rates = watched(net, images(case))
    for layer, rate in rates.items():  # or a mask that is always open would prove nothing
        assert 0.02 < rate < 0.98, layer
    assert expected.std(0).min() > 1e-3
    found = of_ours(compose, case, net.state_dict())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", LEAKING)
def test_the_repaired_qkformer_is_the_original_without_its_leak(compose, name):
    """With attention.batch_leak=false ours is QKFormer with its last neuron seeing [T, B, ...]."""
    case = CASES[name]
    net = original(name, leak=False)
    expected = logits(net, images(case))
    found = of_ours(compose, case, net.state_dict(), "attention.batch_leak=false")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "name", ["spikformer cifar10", "spikingformer imagenet", "sdt cifar10", "qkformer cifar10"]
)
def test_query_and_key_have_their_own_places(compose, name):
    """With the names of query and key exchanged the logits are others."""
    case = CASES[name]
    net = original(name)
    other = {"q": "k", "k": "q"}
    swapped = {
        re.sub(r"\.(q|k)_", lambda found: f".{other[found[1]]}_", name): tensor
        for name, tensor in net.state_dict().items()
    }
    found = of_ours(compose, case, swapped)
    assert (found - logits(net, images(case))).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("spikformer cifar10", "model.num_heads=8"),
        ("spikformer cifar10dvs", "attention.scale=0.125"),
        ("spikformer imagenet", "attention.v_threshold=1"),
        ("spikingformer cifar10", "model.head_lif=true"),
        ("spikingformer cifar10-dvs", "neuron.tau=2"),
        ("spikingformer imagenet", "neuron.fire=gt"),
        ("sdt cifar10-dvs", "model.num_heads=4"),
        ("sdt cifar10", "model.head_lif=false"),
        ("sdt cifar10-dvs", "attention.erode=false"),
        ("qkformer cifar10", "model.num_heads=4"),
        ("qkformer cifar10", "attention.batch_leak=false"),
        ("qkformer imagenet", "neuron.v_threshold=0.9"),
    ],
)
def test_settings_matter(compose, name, change):
    """What the weights do not show changes the logits, which is why an import looks at it."""
    case = CASES[name]
    net = original(name)
    found = of_ours(compose, case, net.state_dict(), change)
    assert (found - logits(net, images(case))).abs().max() > 1e-3


def test_the_order_of_products_does_not_matter(compose):
    """SSA gives the same logits in the order that the original does not have."""
    case = CASES["spikformer imagenet"]
    weights = original("spikformer imagenet").state_dict()
    one, other = (
        of_ours(compose, case, weights, f"attention.order={order}")
        for order in ("qk_first", "kv_first")
    )
    assert torch.equal(one, other)
