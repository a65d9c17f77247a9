"""Every sample has a draw of its own, every draw comes from the generator, and labels stay true."""

import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from saformer.data.augment import augment, crop_flip, erase, mix
from saformer.data.settings import AugmentConfig, RandAugmentOps
from saformer.errors import SettingError

EVERYTHING = AugmentConfig(
    crop_padding=2,
    hflip=0.5,
    degrees=15,
    translate=0.1,
    scale=[0.8, 1.2],
    shear=10,
    randaugment="rand-m9-n2-mstd0.5-inc1",
    randaugment_group=4,
    erase=0.5,
    mixup=0.4,
    cutmix=1.0,
)
GEOMETRY = [
    {"crop_padding": 2},
    {"hflip": 0.5},
    {"degrees": 30},
    {"translate": 0.2},
    {"scale": [0.7, 1.4]},
    {"shear": 20},
]


def augmented(x, config, generator):
    """The whole of what a batch goes through before it is normalised."""
    return augment(crop_flip(x, config, generator), config, generator)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=seeded(1))


def pipeline(x, y, seed):
    """The whole of it, as a training step has it, without the normalisation."""
    generator = seeded(seed)
    x = erase(augmented(x, EVERYTHING, generator), EVERYTHING, generator)
    return mix(x, y, 10, EVERYTHING, generator)


def test_a_seed_fixes_the_batch_bit_for_bit():
    """The result depends on the generator alone: not on torch's or numpy's global state."""
    x, y = images(12, 3, 16, 16), torch.arange(12) % 10
    torch.manual_seed(1)
    np.random.seed(1)
    first = pipeline(x, y, seed=7)
    torch.manual_seed(2)
    np.random.seed(2)
    before = torch.random.get_rng_state(), np.random.get_state()[1].tolist()
    second = pipeline(x, y, seed=7)
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert not torch.equal(first[0], pipeline(x, y, seed=8)[0])
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]


def test_the_input_is_left_as_it_is():
    """No step writes into the batch that it was given."""
    x, y = images(12, 3, 16, 16), torch.arange(12) % 10
    kept = x.clone()
    for seed in range(10):
        pipeline(x, y, seed)
    assert torch.equal(x, kept)


def test_nothing_configured_changes_nothing():
    """The default settings return images and labels as they came and draw no number."""
    x, y, off, generator = images(4, 3, 8, 8), torch.arange(4), AugmentConfig(), seeded()
    mixed = mix(x, y, 10, off, generator)
    assert torch.equal(augmented(x, off, generator), x)
    assert erase(x, off, generator) is x and mixed == (x, y)
    assert torch.equal(generator.get_state(), seeded().get_state())


@pytest.mark.parametrize("changes", GEOMETRY, ids=lambda changes: next(iter(changes)))
def test_the_same_image_twice_comes_out_differently(changes):
    """Draws are per sample: a batch of one image repeated is not one image any more."""
    x = images(1, 3, 16, 16).expand(32, -1, -1, -1)
    y = augmented(x, AugmentConfig(**changes), seeded())
    distinct = len(torch.unique(y.flatten(1), dim=0))
    assert distinct == 2 if "hflip" in changes else distinct > 15


@pytest.mark.parametrize("changes", GEOMETRY, ids=lambda changes: next(iter(changes)))
def test_frames_move_together(changes):
    """All timesteps and polarities of a sample share its draw, and samples do not share one."""
    x = images(1, 1, 1, 16, 16).expand(32, 3, 2, 16, 16)
    y = augmented(x, AugmentConfig(**changes), seeded())
    assert y.shape == x.shape
    assert torch.equal(y, y[:, :1, :1].expand_as(y))
    assert not torch.equal(y[0], y[1]) or not torch.equal(y[0], y[2])


def test_randaugment_refuses_frames():
    """RandAugment on anything but grey or colour images is answered in one line."""
    config = AugmentConfig(randaugment="rand-m9-n1")
    for shape in ((2, 4, 2, 8, 8), (2, 2, 8, 8)):
        with pytest.raises(SettingError, match=r"^augment\.randaugment must be null .*rand-m9-n1$"):
            augmented(images(*shape), config, seeded())


@given(seed=st.integers(0, 1000), side=st.integers(4, 20), channels=st.sampled_from([1, 3]))
def test_the_range_stays(seed, side, channels):
    """Images in 0..1 stay in 0..1 and keep their shape and dtype."""
    x = images(6, channels, side, side).round()  # black and white, the hardest case
    y = augmented(x, EVERYTHING, seeded(seed))
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    assert 0 <= y.min() and y.max() <= 1


@given(seed=st.integers(0, 1000), padding=st.integers(1, 5))
def test_a_crop_is_a_shifted_copy(seed, padding):
    """A crop moves by at most the padding, keeps every value, and fills with zeros."""
    x = torch.arange(1, 65.0).view(1, 1, 8, 8).expand(6, 2, 8, 8)
    y = augmented(x, AugmentConfig(crop_padding=padding), seeded(seed))
    padded = F.pad(x, [padding] * 4)
    for sample, source in zip(y, padded, strict=True):
        places = [
            (i, j)
            for i in range(2 * padding + 1)
            for j in range(2 * padding + 1)
            if torch.equal(sample, source[:, i : i + 8, j : j + 8])
        ]
        assert len(places) == 1


def test_every_offset_of_a_crop_occurs():
    """All (2 * padding + 1) squared offsets are drawn, about equally often."""
    x = torch.zeros(9000, 1, 5, 5)
    x[:, :, 2, 2] = 1
    y = augmented(x, AugmentConfig(crop_padding=1), seeded())
    counts = y.sum((0, 1))[1:4, 1:4]
    assert counts.sum() == 9000
    assert ((counts - 1000).abs() < 150).all()  # five standard deviations


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_flip_has_its_probability(share):
    """None, the configured share, or all of the samples are flipped, and each exactly."""
    x = images(2000, 1, 2, 2)
    y = augmented(x, AugmentConfig(hflip=share), seeded())
    flipped = (y == x.flip(-1)).flatten(1).all(1)
    assert torch.equal(y[~flipped], x[~flipped])
    assert flipped.float().mean().item() == pytest.approx(share, abs=0.05 * (0 < share < 1))


def test_a_zoom_enlarges_about_the_centre():
    """Zoom 2 shows the middle half of the image, at twice its size."""
    x = torch.zeros(1, 1, 8, 8)
    x[..., 2:6, 2:6] = 1
    y = augmented(x, AugmentConfig(scale=[2.0, 2.0]), seeded())
    assert y.min() > 0.5
    assert torch.equal(y[..., 1:7, 1:7], torch.ones(1, 1, 6, 6))


def centroid(x):
    """Centre of mass [B, 2] as (x, y), counted from the image's centre in pixels."""
    place = torch.arange(x.shape[-1]) - (x.shape[-1] - 1) / 2
    mass = x.sum((1, 2, 3))
    return torch.stack([(x.sum((1, 2)) * place).sum(1), (x.sum((1, 3)) * place).sum(1)], 1) / (
        mass.unsqueeze(1)
    )


def spot(dx: int, dy: int) -> torch.Tensor:
    """500 images of one soft spot, (dx, dy) pixels from the centre."""
    x = torch.zeros(500, 1, 33, 33)
    x[:, :, 15 + dy : 18 + dy, 15 + dx : 18 + dx] = 1
    return x


@pytest.mark.parametrize("zoom", [1, 2])
def test_a_rotation_keeps_the_distance_and_reaches_its_bounds(zoom):
    """A spot beside the centre turns by up to `degrees` either way; a zoom widens its circle."""
    config = AugmentConfig(degrees=30, scale=[zoom, zoom])
    at = centroid(augmented(spot(10 // zoom, 0), config, seeded()))
    angle = torch.rad2deg(torch.atan2(at[:, 1], at[:, 0]))
    assert torch.allclose(at.norm(dim=1), torch.tensor(10.0), atol=0.1)
    assert -30.5 < angle.min() < -28 and 28 < angle.max() < 30.5


def test_a_zoom_reaches_its_bounds():
    """A spot beside the centre lands between `scale` times its distance."""
    at = centroid(augmented(spot(6, 0), AugmentConfig(scale=[0.5, 2]), seeded()))
    assert 2.9 < at[:, 0].min() < 3.1 and 11.8 < at[:, 0].max() < 12.1


def test_a_shift_reaches_its_bounds_on_both_axes():
    """A spot moves by up to `translate` of the side, in either direction of either axis."""
    at = centroid(augmented(spot(0, 0), AugmentConfig(translate=0.2), seeded()))
    low, high = at.amin(0), at.amax(0)
    assert ((low > -6.7) & (low < -6)).all() and ((high > 6) & (high < 6.7)).all()
    assert abs(np.corrcoef(at.T)[0, 1]) < 0.2


def test_a_shear_is_horizontal():
    """A spot below the centre moves sideways by up to tan(shear) of its distance."""
    at = centroid(augmented(spot(0, 10), AugmentConfig(shear=20), seeded()))
    reach = 10 * math.tan(math.radians(20))
    assert torch.allclose(at[:, 1], torch.tensor(10.0), atol=0.1)
    assert -reach - 0.1 < at[:, 0].min() < -0.9 * reach
    assert 0.9 * reach < at[:, 0].max() < reach + 0.1


@given(seed=st.integers(0, 1000), side=st.integers(4, 40))
def test_an_erased_region_is_one_rectangle_of_the_right_size(seed, side):
    """Area 0.02..1/3 and ratio of the sides 0.3..1/0.3 hold, to half a pixel per side."""
    y = erase(torch.ones(8, 3, side, side), AugmentConfig(erase=1.0), seeded(seed))
    for sample in y:
        hole = sample[0] == 0
        assert torch.equal(sample == 0, hole.expand_as(sample))
        height, width = int(hole.any(1).sum()), int(hole.any(0).sum())
        rows, columns = hole.any(1).nonzero().flatten(), hole.any(0).nonzero().flatten()
        assert rows[-1] - rows[0] + 1 == height and columns[-1] - columns[0] + 1 == width
        assert hole.sum() == height * width
        assert (height - 0.5) * (width - 0.5) <= side**2 / 3
        assert (height + 0.5) * (width + 0.5) >= 0.02 * side**2
        assert max(height - 0.5, 0) <= (width + 0.5) / 0.3
        assert max(width - 0.5, 0) <= (height + 0.5) / 0.3


def test_erased_area_and_place_are_uniform():
    """The mean area is that of 0.02..1/3, and no side or axis of the image is hit more often."""
    hole = erase(torch.ones(4000, 1, 32, 32), AugmentConfig(erase=1.0), seeded()) == 0
    share = hole.float().mean((1, 2, 3))
    assert share.mean().item() == pytest.approx((0.02 + 1 / 3) / 2, abs=0.005)
    often = hole.float().mean((0, 1))
    assert torch.allclose(often, often.flip(0), atol=0.04)
    assert torch.allclose(often, often.T, atol=0.04)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_erasing_has_its_probability(share):
    """None, the configured share, or all of the samples lose a rectangle."""
    y = erase(torch.ones(2000, 1, 8, 8), AugmentConfig(erase=share), seeded())
    hit = (y == 0).flatten(1).any(1).float().mean().item()
    assert hit == pytest.approx(share, abs=0.05 * (0 < share < 1))


def test_erasing_hits_all_frames_of_a_sample():
    """The rectangle of an event sample is the same at all timesteps, and differs by sample."""
    y = erase(torch.ones(4, 5, 2, 16, 16), AugmentConfig(erase=1.0), seeded())
    assert torch.equal(y, y[:, :1, :1].expand_as(y))
    assert len(torch.unique(y.flatten(1), dim=0)) == 4


@given(
    seed=st.integers(0, 1000),
    mixup=st.sampled_from([0.0, 0.5]),
    cutmix=st.sampled_from([0.0, 1.0]),
    mix_prob=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_targets_are_probabilities_of_one_form(seed, mixup, cutmix, mix_prob):
    """Targets add up to 1 and keep shape and dtype, whatever was drawn; off means class numbers."""
    x, y = images(5, 3, 8, 8), torch.tensor([0, 1, 2, 3, 4])
    config = AugmentConfig(mixup=mixup, cutmix=cutmix, mix_prob=mix_prob)
    mixed, targets = mix(x, y, 7, config, seeded(seed))
    if not mixup and not cutmix:
        assert targets is y
        return
    assert (targets.shape, targets.dtype) == ((5, 7), torch.float32)
    assert torch.allclose(targets.sum(1), torch.ones(5))
    assert (targets >= 0).all()
    if mix_prob == 0:
        assert torch.equal(targets, F.one_hot(y, 7).float()) and torch.equal(mixed, x)


@given(seed=st.integers(0, 1000))
def test_mixup_mixes_images_as_it_mixes_targets(seed):
    """One share for the batch: image and target of i are the same blend of i and its partner."""
    x, y = images(6, 3, 4, 4), torch.arange(6)
    mixed, targets = mix(x, y, 6, AugmentConfig(mixup=1.0), seeded(seed))
    own = targets[0, 0]
    assert torch.allclose(mixed, own * x + (1 - own) * x.flip(0), atol=1e-6)
    assert torch.allclose(targets, own * torch.eye(6) + (1 - own) * torch.eye(6).flip(0))


@given(seed=st.integers(0, 1000), frames=st.booleans())
def test_cutmix_targets_are_the_area(seed, frames):
    """The partner's share of the target is exactly the share of pixels that come from it."""
    shape = (4, 3, 2, 9, 9) if frames else (4, 3, 9, 9)
    x = torch.arange(4.0).view(4, *[1] * (len(shape) - 1)).expand(shape)
    mixed, targets = mix(x, torch.arange(4), 4, AugmentConfig(cutmix=1.0), seeded(seed))
    foreign = mixed != x
    assert torch.equal(mixed, torch.where(foreign, x.flip(0), x))
    assert torch.equal(foreign, foreign[:1].expand_as(foreign))
    area = foreign.float().mean().item()
    assert targets[0].tolist() == pytest.approx([1 - area, 0, 0, area], abs=1e-6)
    box = foreign[0].flatten(0, -3)[0]
    assert box.sum() == box.any(0).sum() * box.any(1).sum()


def test_mixing_draws_kind_share_and_chance_as_configured():
    """MixUp and CutMix take turns, `mix_prob` of the batches are mixed, shares follow Beta."""
    x, y = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 8, 8), torch.tensor([0, 1])
    generator = seeded()
    config = AugmentConfig(mixup=0.5, cutmix=0.5, mix_prob=0.8)
    kinds = []
    for _ in range(2000):
        first = mix(x, y, 2, config, generator)[0][0]
        values = first.unique()
        # All 0 is no mixing (or an empty box), one other value is MixUp, 0 beside 1 is CutMix.
        kinds.append("off" if values.tolist() == [0] else "up" if len(values) == 1 else "cut")
    assert kinds.count("up") / 2000 == pytest.approx(0.4, abs=0.05)
    assert 0.25 < kinds.count("cut") / 2000 < 0.45
    config = AugmentConfig(mixup=0.5)
    shares = torch.stack([mix(x, y, 2, config, generator)[1][0, 0] for _ in range(2000)])
    assert shares.mean().item() == pytest.approx(0.5, abs=0.03)
    assert shares.var().item() == pytest.approx(1 / 8, abs=0.01)  # 1 / (4 (2a + 1)) for Beta(a, a)


CIFAR = {"hflip": 0.5, "randaugment": "rand-m9-n1-mstd0.4-inc1", "erase": 0.25, "mixup": 0.5}
EVENTS = {"nda": True, "mixup": 0.5, "mix_prob": 0.5, "mixup_off_epoch": 75}
IMAGENET = {"hflip": 0.5, "randaugment": "rand-m9-mstd0.5-inc1", "erase": 0.25}

# The peers' files: cifar10/cifar10.yml and cifar10/aa_snn.py of Spikformer, cifar10dvs/train.py of
# it, imagenet/imagenet.yml of Spikformer and Spikingformer, imagenet/train.py of QKFormer, and
# conf/imagenet/8_512_300E_t4.yml of Spike-driven Transformer.
PRESETS = {
    "none": AugmentConfig(),
    "cifar": AugmentConfig(**CIFAR),
    "cifar_spikformer": AugmentConfig(**CIFAR, randaugment_ops=RandAugmentOps.spikformer),
    "events": AugmentConfig(**EVENTS, hflip=0.5),
    "gesture": AugmentConfig(**EVENTS),
    "imagenet_spikformer": AugmentConfig(
        **IMAGENET, resized_crop=[1.0, 1.0], mixup=0.8, cutmix=1.0
    ),
    "imagenet_qkformer": AugmentConfig(**IMAGENET, resized_crop=[0.08, 1.0]),
    "imagenet_sdt": AugmentConfig(
        hflip=0.5,
        randaugment="rand-m5-mstd0.5-inc1",
        resized_crop=[0.2, 1.0],
        mixup=0.2,
        cutmix=1.0,
        mix_prob=0.6,
    ),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_the_presets_are_the_peers(compose, preset):
    """Each recipe of a peer has the numbers of the peer's own file, and nothing else is on."""
    dataset = "digits_events" if preset in ("events", "gesture") else "digits"
    words = (f"dataset={dataset}", "dataset.flippable=true", f"augment={preset}")
    assert compose(*words).augment == PRESETS[preset]


@pytest.mark.parametrize("dataset", ["digits", "digits_events", "dvs128_gesture"])
def test_a_flip_that_changes_the_label_is_refused(compose, dataset):
    """hflip on such a dataset is answered in one line, and passes where the user insists."""
    rule = f"augment.hflip must be 0 for {dataset}, where a mirrored image is of another class"
    with pytest.raises(SettingError) as error:
        compose(f"dataset={dataset}", "augment.hflip=0.5")
    assert str(error.value) == f"{rule} (dataset.flippable=true allows it), not 0.5"
    flags = ("augment.hflip=0.5", "dataset.flippable=true")
    assert compose(f"dataset={dataset}", *flags).augment.hflip == 0.5


@pytest.mark.parametrize(
    "wrong",
    [
        {"resized_crop": [0.0, 1.0]},
        {"resized_crop": [0.5, 0.2]},
        {"resized_crop": [0.5, 1.2]},
        {"resized_crop": [0.5]},
        {"mixup_off_epoch": -1},
        {"mix_prob": 1.5},
    ],
    ids=str,
)
def test_numbers_out_of_range_are_refused(wrong):
    """The answer names the setting and the value."""
    ((name, value),) = wrong.items()
    with pytest.raises(
        SettingError, match=rf"^augment\.{name} must be .*not {re.escape(str(value))}$"
    ):
        AugmentConfig(**wrong)
