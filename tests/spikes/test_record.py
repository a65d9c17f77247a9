"""A recording says what the network did: its rates, masks, products and spikes, and no more."""

import random

import pytest
import torch
from firing import IMAGES
from torch import nn

from saformer.energy import count
from saformer.energy.table import Kind as Counted
from saformer.models.neuron import MultiStepLeaky
from saformer.spikes.record import SAMPLED, Kind, record

SASA = "model.dwc.place=none"
HIERARCHY = ("model=qkformer_4_384", "model.dim=32", "attention=ssa")
NETWORKS = [
    (SASA,),
    ("attention=ssa", "model.residual=sew", "timesteps=1"),
    ("attention=sdsa", "attention.erode=true", "model.dwc.place=mlp"),
    ("attention=pooling", "model.dwc.place=none", "timesteps=2"),
    ("attention.weights=none", SASA),
    HIERARCHY,
    (*HIERARCHY, "attention.batch_leak=true"),
]


def outputs(model: nn.Module, *names: str) -> list[torch.Tensor]:
    """What modules of the network give for the images, in the order of the names."""
    seen = {}
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda module, args, out, name=name: seen.update({name: out})
        )
        for name in names
    ]
    with torch.no_grad():
        model(IMAGES)
    for handle in handles:
        handle.remove()
    return [seen[name] for name in names]


def heads(x: torch.Tensor) -> torch.Tensor:
    """[T, B, D, H, W] -> [T, B, 2, d, N]."""
    return x.reshape(*x.shape[:2], 2, -1, x.shape[3] * x.shape[4])


def fire(x: torch.Tensor) -> torch.Tensor:
    """A neuron of tau 2 and threshold 0.5 with a hard reset, step by step over [T, ...]."""
    membrane, spikes = torch.zeros_like(x[0]), []
    for step in x:
        membrane = membrane + (step - membrane) / 2
        spikes.append((membrane >= 0.5).float())
        membrane = membrane * (1 - spikes[-1])
    return torch.stack(spikes)


@pytest.mark.parametrize("overrides", NETWORKS, ids=" ".join)
def test_rates_are_those_of_the_energy_report(network, overrides):
    """The layers, their order and their rates are what counting finds on the same images."""
    model = network(*overrides)
    counted = count(model, IMAGES).of(Counted.neuron)
    layers = record(model, IMAGES).layers
    assert [layer.name for layer in layers] == [layer.name for layer in counted]
    for layer, expected in zip(layers, counted, strict=True):
        assert float(layer.rates.mean()) == pytest.approx(expected.rate, abs=1e-6), layer.name
        if layer.maps is not None:
            assert layer.maps.mean((1, 2)) == pytest.approx(layer.rates, abs=1e-6), layer.name
    assert any(layer.rates.sum() for layer in layers)
    placeless = {layer.name for layer in layers if layer.maps is None}
    assert placeless == {
        name for name in (layer.name for layer in layers) if "mask" in name or name == "head_lif"
    }


def test_a_map_is_the_mean_over_channels_and_time(network):
    """Each place of a map is the share of its channels and steps that spiked."""
    model = network(SASA)
    (spikes,) = outputs(model, "blocks.0.mlp.layers.0")
    (layer,) = [x for x in record(model, IMAGES).layers if x.name == "blocks.0.mlp.layers.0"]
    assert layer.maps.shape == (3, 4, 4) and layer.maps.std() > 0
    for image, row, column in ((0, 0, 0), (1, 2, 3), (2, 3, 1)):
        share = spikes[:, image, :, row, column].sum() / (4 * 16)
        assert layer.maps[image, row, column] == pytest.approx(float(share))


@pytest.mark.parametrize("attention", ["qkta", "sasa"])
def test_a_mask_over_tokens_is_the_share_of_open_steps(network, attention):
    """Recomputed from the captured queries and keys with a neuron written out."""
    chosen = ["attention.aggregate=channels"] if attention == "sasa" else []
    model = network(f"attention={attention}", *chosen, SASA)
    q, k = outputs(model, "blocks.0.attn.q", "blocks.0.attn.k")
    weights = heads(q * k if attention == "sasa" else q)
    expected = fire(weights.sum(3)).mean(0).reshape(3, 2, 4, 4)
    (found,) = record(model, IMAGES).attentions
    assert (found.name, found.kind, found.masks) == ("blocks.0.attn", Kind.tokens, None)
    assert torch.equal(found.maps, expected)
    assert 0 < expected.mean() < 1


@pytest.mark.parametrize("attention", ["sasa", "qkca", "sdsa"])
def test_a_mask_over_channels_is_recorded_with_what_passes(network, attention):
    """Mask [B, h, d, T] and the rate of the gated spikes, from the captured projections."""
    model = network(f"attention={attention}", SASA)
    names = ["blocks.0.attn.q", "blocks.0.attn.k", "blocks.0.attn.v"]
    q, k, *v = outputs(model, *names[: 3 if attention == "sdsa" else 2])
    weights, gated = {
        "sasa": (q * k, k),
        "qkca": (q, k),
        "sdsa": (k * v[0] if v else k, q),
    }[attention]
    mask = fire(heads(weights).sum(4))
    (found,) = record(model, IMAGES).attentions
    assert found.kind is Kind.channels
    assert torch.equal(found.masks, mask.permute(1, 2, 3, 0))
    passed = (mask[..., None] * heads(gated)).mean((0, 3)).reshape(3, 2, 4, 4)
    assert torch.allclose(found.maps, passed, atol=1e-6)
    assert 0 < mask.mean() < 1 and passed.std() > 0


@pytest.mark.parametrize("attention", ["ssa", "ssa_kv_first", "random"])
def test_products_are_the_attention_that_a_token_receives(network, attention):
    """The mean over queries and steps of a column of Q K^T, in whichever order it is computed."""
    model = network(f"attention={attention}", SASA)
    q, k = (heads(x) for x in outputs(model, "blocks.0.attn.q", "blocks.0.attn.k"))
    matrix = torch.einsum("tbhdq,tbhdk->tbhqk", q, k)
    expected = matrix.mean((0, 3)).reshape(3, 2, 4, 4)
    (found,) = record(model, IMAGES).attentions
    assert found.kind is Kind.products
    assert torch.allclose(found.maps, expected, atol=1e-6)
    assert expected.std() > 0


def test_each_attention_is_found_once_and_controls_have_none(network):
    """Two masks of one attention are two, stages come in order, and controls have none."""
    deep = record(network(SASA, "model.depth=2"), IMAGES).attentions  # q AND k is no mask
    assert [one.name for one in deep] == ["blocks.0.attn", "blocks.1.attn"]
    both = record(network("attention.aggregate=both", SASA), IMAGES).attentions
    assert [one.kind for one in both] == [Kind.tokens, Kind.channels]
    staged = record(network(*HIERARCHY), IMAGES).attentions
    assert [(one.name, one.kind, tuple(one.maps.shape[2:])) for one in staged] == [
        ("blocks.0.attn", Kind.tokens, (8, 8)),
        ("blocks.2.attn", Kind.tokens, (4, 4)),
        ("blocks.4.attn", Kind.products, (2, 2)),
        ("blocks.5.attn", Kind.products, (2, 2)),
    ]
    for control in ("attention=pooling", "attention=identity", "attention.weights=none"):
        assert record(network(control, SASA), IMAGES).attentions == []


def test_sampled_spikes_are_those_of_neurons(network):
    """A small layer is kept whole, of a large one the same 24 neurons each time."""
    model = network(SASA, "timesteps=6")
    names = ["head_lif", "blocks.0.mlp.layers.2"]
    head, hidden = (x.flatten(2) for x in outputs(model, *names))
    first, again = ({x.name: x.sampled for x in record(model, IMAGES).layers} for _ in range(2))
    assert torch.equal(first[names[0]], head)
    kept = first[names[1]]
    assert kept.shape == (6, 3, SAMPLED) and torch.equal(kept, again[names[1]])
    all_of_them = {tuple(column) for column in hidden.flatten(0, 1).T.tolist()}
    columns = [tuple(column) for column in kept.flatten(0, 1).T.tolist()]
    assert set(columns) <= all_of_them and len(set(columns)) > SAMPLED / 2


def test_a_recording_leaves_the_network_as_it_was(network):
    """No hook, weight, statistic, membrane or random number differs; logits are the network's."""
    model = network("attention=ssa", "neuron.backend=loop")
    hooks = [len(module._forward_hooks) for module in model.modules()]
    with torch.no_grad():
        logits = model(IMAGES).mean(0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(5)
    random.seed(5)
    drawn = torch.get_rng_state(), random.getstate()
    with torch.inference_mode():
        found = record(model, IMAGES)
    assert torch.equal(found.logits, logits)
    assert torch.equal(torch.get_rng_state(), drawn[0]) and random.getstate() == drawn[1]
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    neurons = [module for module in model.modules() if isinstance(module, MultiStepLeaky)]
    assert neurons and not any(neuron.mem.numel() for neuron in neurons)
    assert not model.training
    with pytest.raises(ValueError, match="for which the network was built"):
        record(model, IMAGES.repeat(1, 2, 1, 1))
    assert [len(module._forward_hooks) for module in model.modules()] == hooks


def test_a_compiled_network_is_recorded_eagerly(network):
    """Hooks compile nothing, and the network stays compiled."""
    model = network(SASA)
    calls = []
    model.compile(backend=lambda graph, inputs: calls.append(1) or graph.forward)
    compiled = model._compiled_call_impl
    assert record(model, IMAGES).attentions
    assert not calls and model._compiled_call_impl is compiled


def test_training_mode_is_refused(network):
    """It would change the statistics of BatchNorm."""
    with pytest.raises(AssertionError, match="training mode"):
        record(network(SASA).train(), IMAGES)


def test_event_frames_are_recorded(network):
    """[B, T, 2, H, W] folds as images do."""
    frames = torch.rand(2, 3, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    events = ("dataset=digits_events", "dataset.image_size=8", "augment=none", "timesteps=3")
    found = record(network(*events, images=frames), frames)
    assert {layer.sampled.shape[:2] for layer in found.layers} == {(3, 2)}
    assert found.logits.shape == (2, 10)
