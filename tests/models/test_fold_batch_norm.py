"""A network whose BatchNorm is folded into its convolutions computes what it did before."""

import pytest
import torch
from lively import images
from snntorch import SpikingNeuron
from torch import nn

from saformer.models.fold_batch_norm import fold_batch_norm
from saformer.models.layers import ConvBN

SMALL = ("model.dim=64", "model.depth=1", "model.num_heads=4")
NETWORKS = [
    (),
    ("ablation=sew_residual", "timesteps=3"),
    ("ablation=pooling",),
    ("ablation=dwc_mlp", "neuron=if"),
    ("model=spikformer_4_384", *SMALL),
    ("model=sdt_2_256", *SMALL, "timesteps=2"),
    ("model=qkformer_4_384", "model.dim=64", "timesteps=2"),
]


@pytest.fixture
def trained(backbone):
    """A network that spikes, with a BatchNorm in which nothing is one or zero."""

    def call(*overrides: str) -> nn.Module:
        model = backbone(*overrides)
        generator = torch.Generator().manual_seed(2)
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.momentum = 1.0  # the running statistics become those of one batch
                nn.init.uniform_(norm.weight, 1.5, 3.5, generator=generator)
                nn.init.normal_(norm.bias, std=0.3, generator=generator)
        with torch.no_grad():
            model.train()(images(16))
            model.head.weight.mul_(20)
        return model

    return call


def spikes(model: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and the spikes of all neurons in one vector."""
    found: list[torch.Tensor] = []
    hooks = [
        neuron.register_forward_hook(lambda module, args, y: found.append(y.flatten()))
        for neuron in model.modules()
        if isinstance(neuron, SpikingNeuron)
    ]
    with torch.no_grad():
        logits = model(x)
    for hook in hooks:
        hook.remove()
    return logits, torch.cat(found)


@pytest.mark.parametrize("overrides", NETWORKS, ids=lambda o: " ".join(o) or "default")
def test_it_computes_what_it_did(trained, overrides):
    """Logits and spikes are those of evaluation mode; in float64, no membrane is near a tie."""
    model = trained(*overrides).eval().double()
    folded = fold_batch_norm(model)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())
    x = images(8).double()
    (wanted, fired), (logits, fires) = spikes(model, x), spikes(folded, x)
    assert wanted.std() > 0.01 and 0.02 < fired.mean() < 0.9
    assert torch.equal(fires, fired)
    torch.testing.assert_close(logits, wanted, rtol=0, atol=1e-10)


def test_few_spikes_are_near_a_tie(trained):
    """In float32, as networks are trained, one spike of ten thousand at most is another."""
    model = trained().eval()
    (_, fired), (_, fires) = spikes(model, images(32)), spikes(fold_batch_norm(model), images(32))
    assert (fires != fired).float().mean() < 1e-4


def test_the_original_is_left_as_it_was(trained):
    """Weights, statistics and mode of the original stay, and the copy shares none with it."""
    model = trained()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    folded = fold_batch_norm(model)
    with torch.no_grad():
        for value in folded.state_dict().values():
            value.zero_()
    assert model.training and not folded.training
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_the_layout_stays(trained):
    """Folded weights keep channels_last, in which 1x1 convolutions run faster."""
    folded = fold_batch_norm(trained())
    convolutions = [part.conv for part in folded.modules() if isinstance(part, ConvBN)]
    assert any(min(conv.weight.shape[1:]) > 1 for conv in convolutions)  # where layouts differ
    for conv in convolutions:
        assert conv.weight.is_contiguous(memory_format=torch.channels_last)
