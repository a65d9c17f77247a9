"""The backbone keeps the promises that training, energy counting and DDP rely on."""

import copy
import itertools
import re

import pytest
import torch
from lively import filled, images, lively, step_by_step
from mostly_slow import mostly_slow
from torch import nn

from saformer.errors import SettingError

MODEL_PRESETS = ["saformer_2_256", "saformer_4_256", "saformer_2_384", "saformer_4_384"]
READINGS = [
    (f"attention.weights={w}", f"attention.aggregate={a}", f"attention.apply_to={t}")
    for w, a, t in itertools.product(
        ("qk", "q", "k", "none"), ("tokens", "channels", "both"), ("k", "q", "x")
    )
]
VARIANTS = [
    (),
    ("model.residual=sew",),
    ("model.dwc.place=series", "model.dwc.kernel_size=5"),
    ("model.dwc.place=mlp",),
    ("model.dwc.place=none",),
    ("model.head_lif=false",),
    ("attention.operator=max",),
    ("attention.operator=mean", "attention.v_threshold=0.05"),
    ("attention.threshold=learnable",),
    ("attention.threshold=fraction", "attention.v_threshold=0.05"),
    ("neuron=plif",),
    ("neuron=if",),
    ("neuron=lif_soft",),
    ("neuron=lif_snntorch",),
    ("model.stem_depth=2",),
]


@pytest.mark.parametrize("overrides", mostly_slow(READINGS, 3), ids=" ".join)
def test_every_reading_trains_every_parameter(backbone, overrides):
    """No parameter is without a gradient, so DDP needs no search for unused ones."""
    model = lively(backbone(*overrides))
    model(images()).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("overrides", VARIANTS, ids=lambda o: " ".join(o) or "default")
def test_every_variant_trains_every_parameter(backbone, overrides):
    """No parameter is without a gradient, and every gradient is finite."""
    model = lively(backbone(*overrides))
    model(images()).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("overrides", VARIANTS, ids=lambda o: " ".join(o) or "default")
def test_logits_do_not_depend_on_batch_mates(backbone, overrides):
    """In evaluation an image gets the same logits alone, in company, and in any order."""
    model = lively(backbone(*overrides)).eval()
    x = images(6)
    with torch.no_grad():
        together = model(x)
        alone = torch.cat([model(one[None]) for one in x], dim=1)
        order = torch.tensor([3, 1, 5, 0, 4, 2])
        shuffled = model(x[order])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(together[:, order], shuffled, rtol=1e-5, atol=1e-5)


def test_rate_coding_spikes_at_the_rate_of_the_pixels(backbone):
    """Zeros and ones, drawn anew at each step and pass, with the pixel as their mean."""
    model = backbone("ablation=rate_coding", "timesteps=2000")
    x = torch.linspace(-0.5, 1.5, 64).view(1, 1, 8, 8)
    torch.manual_seed(0)
    spikes = model.encode(x)
    assert spikes.shape == (2000, 1, 1, 8, 8)
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    mean, p = spikes.mean(0), x.clamp(0, 1)
    assert ((mean - p).abs() <= 5 * (p * (1 - p) / 2000).sqrt() + 1e-6).all()
    assert not torch.equal(spikes, model.encode(x))
    frames = spikes[:, 0].unsqueeze(0)
    assert torch.equal(model.encode(frames)[:, 0], frames[0])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((), "dataset.mean must be [0] with model.encoding=rate"),
        (("dataset.mean=[0]",), "dataset.std must be [1] with model.encoding=rate"),
        (
            ("experiment=digits_events", "dataset.mean=[0]", "dataset.std=[1]"),
            "model.encoding must be direct for events, not rate",
        ),
    ],
)
def test_rate_coding_wants_pixels(compose, overrides, message):
    """Normalised pixels are no probabilities, and events are spikes already."""
    with pytest.raises(SettingError, match=re.escape(message)):
        compose("model.encoding=rate", *overrides)


@pytest.mark.parametrize("overrides", VARIANTS, ids=lambda o: " ".join(o) or "default")
def test_time_runs_forward(backbone, overrides):
    """The logits of a timestep depend on no later frame."""
    model = lively(backbone(*overrides)).eval()
    frames = images(8).unflatten(0, (2, 4))  # [B, T, C, H, W]
    changed = frames.clone()
    changed[:, 2:] += 3.0
    with torch.no_grad():
        before, after = model(frames), model(changed)
    torch.testing.assert_close(before[:2], after[:2])
    assert not torch.equal(before[2:], after[2:])


@pytest.mark.parametrize("overrides", VARIANTS, ids=lambda o: " ".join(o) or "default")
def test_no_state_is_left_behind(backbone, overrides):
    """After a training step every membrane buffer is empty and the model can be copied."""
    model = step_by_step(lively(backbone(*overrides)))
    x = images()
    first = model(x)
    first.sum().backward()
    assert filled(model) == []
    twin = copy.deepcopy(model)
    model.eval(), twin.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(x), twin(x), rtol=0, atol=0)
        torch.testing.assert_close(model(x), twin(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    "overrides",
    [v for v in VARIANTS if v not in [("model.residual=sew",), ("model.head_lif=false",)]],
    ids=lambda o: " ".join(o) or "default",
)
def test_every_weight_layer_after_the_first_sees_spikes(backbone, overrides):
    """Every convolution and linear layer but the first has an input of zeros and ones."""
    model = lively(backbone(*overrides))
    seen: dict[str, torch.Tensor] = {}
    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    for name, layer in layers.items():
        layer.register_forward_pre_hook(
            lambda _m, args, name=name: seen.__setitem__(name, args[0].detach())
        )
    model(images())
    assert seen.keys() == layers.keys()
    first, *others = seen
    assert first == "stem.stages.0.conv"
    for name in others:
        x = seen[name]
        assert ((x == 0) | (x == 1)).all(), name
        assert x.any(), f"{name} never saw a spike, so this test would prove nothing"


def test_the_sew_residual_adds_spikes(backbone):
    """With the SEW residual the layers see small integers, as its design says."""
    model = lively(backbone("model.residual=sew"))
    seen = []
    model.blocks[0].mlp.layers[0].conv.register_forward_pre_hook(
        lambda _m, args: seen.append(args[0])
    )
    model(images())
    assert torch.equal(seen[0], seen[0].round())
    assert 1 < seen[0].max() <= 3


@pytest.mark.parametrize("preset", MODEL_PRESETS)
def test_presets_for_32_pixels(backbone, preset):
    """Every preset for 32 px images gives logits for every timestep."""
    data = ("dataset.in_channels=3", "dataset.mean=[0,0,0]", "dataset.std=[1,1,1]")
    model = backbone(f"model={preset}", *data, "dataset.image_size=32", "timesteps=2")
    with torch.no_grad():
        assert model(images(1, 32, 3)).shape == (2, 1, 10)


@pytest.mark.parametrize("preset", ["saformer_8_384", "saformer_8_512", "saformer_8_768"])
def test_presets_for_224_pixels(backbone, preset):
    """Every preset for 224 px images cuts them into 14 x 14 tokens."""
    data = ("dataset.in_channels=3", "dataset.mean=[0,0,0]", "dataset.std=[1,1,1]")
    small = ("model.depth=1", "timesteps=1")
    model = backbone(f"model={preset}", *data, "dataset.image_size=224", *small)
    with torch.no_grad():
        assert model.stem(model.encode(images(1, 224, 3))).shape[3:] == (14, 14)


def test_preset_for_events(backbone):
    """The event preset takes frames [B, T, 2, 128, 128]."""
    data = ("dataset.in_channels=2", "dataset.mean=[0,0]", "dataset.std=[1,1]")
    model = backbone("model=saformer_2_256_events", *data, "dataset.image_size=128", "timesteps=2")
    with torch.no_grad():
        assert model(images(2, 128, 2).unflatten(0, (1, 2))).shape == (2, 1, 10)
        with pytest.raises(ValueError, match="3 frames were given to a model of T=2"):
            model(images(3, 128, 2).unflatten(0, (1, 3)))


@pytest.mark.parametrize("words", [(), ("attention.operator=mean",), ("model=qkformer_4_384",)])
@pytest.mark.parametrize(
    "shape", [(2, 1, 32, 64), (2, 1, 64, 64), (2, 3, 32, 32), (1, 32, 32), (2, 4, 1, 16, 16)]
)
def test_other_images_than_it_was_built_for(backbone, words, shape):
    """Convolutions would take them, and masks by their number of tokens be wrong."""
    size = ("dataset.image_size=32", "model.patch_size=4", "model.dim=64", "model.num_heads=4")
    model = backbone(*words, *size[: 1 if words == ("model=qkformer_4_384",) else None])
    assert model(torch.rand(1, 1, 32, 32)).shape == (4, 1, 10)
    with pytest.raises(ValueError) as error:
        model(torch.rand(shape))
    rule = (
        "the input must be [B, 1, 32, 32] or [B, 4, 1, 32, 32], for which the network was built, "
    )
    assert str(error.value) == f"{rule}not {list(shape)}"


def test_a_compiled_or_exported_network_checks_its_input(backbone):
    """The number of images may change in both, and their size in neither."""
    model = backbone().eval()
    x = torch.rand(2, 1, 8, 8)
    dynamic = ({0: torch.export.Dim("B", min=2)},)
    exported = torch.export.export(model, (x,), dynamic_shapes=dynamic).module()
    for batch in (2, 5):
        x = torch.rand(batch, 1, 8, 8)
        assert torch.equal(exported(x), model(x))
    with pytest.raises(Exception, match="8"):
        exported(torch.rand(2, 1, 16, 16))


@pytest.mark.parametrize(("size", "patch"), [(8, 1), (8, 2), (16, 2), (28, 4), (64, 8), (64, 4)])
def test_the_stem_is_chosen_by_patch_size(backbone, size, patch):
    """The token grid is the image side over the patch size."""
    model = backbone(f"dataset.image_size={size}", f"model.patch_size={patch}", "timesteps=1")
    with torch.no_grad():
        assert model.stem(model.encode(images(1, size))).shape[3:] == (size // patch,) * 2


def test_weights_start_as_documented(backbone):
    """Weights are a cut-off normal of 0.02, biases zero, BatchNorm the identity."""
    model = backbone("model=saformer_2_256", "dataset.image_size=32")
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert module.weight.abs().max() <= 0.04
            assert module.weight.mean().abs() < 0.005
            assert module.bias is None or not module.bias.any()
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and not module.bias.any()


def test_a_static_image_equals_the_same_frame_repeated(backbone):
    """Direct encoding is the image shown at every timestep."""
    model = lively(backbone("timesteps=3")).eval()
    x = images()
    with torch.no_grad():
        repeated = x.unsqueeze(1).expand(-1, 3, -1, -1, -1)
        torch.testing.assert_close(model(x), model(repeated))
