"""Event frames are moved as the peers move them, and what they count stays whole."""

import math

import pytest
import torch
from event_files import write_cifar10_dvs
from hypothesis import assume, given
from hypothesis import strategies as st
from torchvision.transforms import functional as F

from saformer.data.augment import augment, crop_flip
from saformer.data.event_augment import OPERATIONS, maps, nda
from saformer.data.geometry import warp
from saformer.data.settings import AugmentConfig
from saformer.errors import SettingError

EVERYTHING = AugmentConfig(
    crop_padding=2, hflip=0.5, degrees=15, translate=0.1, scale=[0.8, 1.2], shear=10, nda=True
)
DEGREES = 180 / math.pi

# torchvision's functions on one clip, as SNNAugmentWide calls them, for an amount in -1..1.
REFERENCE = {
    "identity": lambda x, _: x,
    "shear_x": lambda x, a: F.affine(x, 0, [0, 0], 1.0, [0.3 * a * DEGREES, 0]),
    "translate_x": lambda x, a: F.affine(x, 0, [round(5 * a), 0], 1.0, [0, 0]),
    "translate_y": lambda x, a: F.affine(x, 0, [0, round(5 * a)], 1.0, [0, 0]),
    "rotate": lambda x, a: F.rotate(x, 30 * a),
    "cutout": lambda x, _: x,
}


def augmented(x, config, generator):
    """The whole of what a batch goes through before it is normalised."""
    return augment(crop_flip(x, config, generator), config, generator)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def counts(*shape: int) -> torch.Tensor:
    """Counts of events, 0 to 20."""
    return torch.randint(21, shape, generator=seeded(1)).float()


def read_back(side: int, clips: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each pixel of augmented clips came from.

    Returns:
        Source columns and rows [B, 2, H, W], counted from the centre, NaN where there is none; and
        the same for a clip that does not move.
    """
    place = torch.arange(side) - (side - 1) / 2
    still = torch.stack(torch.meshgrid(place, place, indexing="xy"))
    x = torch.cat([still, torch.ones(1, side, side)]).expand(clips, -1, -1, -1)
    y = nda(x, seeded())
    return y[:, :2].masked_fill(y[:, 2:] == 0, math.nan), still


@pytest.mark.parametrize("name", OPERATIONS)
@given(amount=st.floats(-1, 1))
def test_an_operation_is_torchvisions(name, amount):
    """At 128 px each operation gives, pixel for pixel, what the peers call of torchvision."""
    amount = float(torch.tensor(amount))
    halfway = abs(5 * amount % 1 - 0.5) < 1e-3  # shifts are rounded to whole pixels
    assume(not (name.startswith("translate") and halfway))
    x = counts(1, 2, 128, 128)
    y = warp(x, maps(torch.tensor([OPERATIONS.index(name)]), torch.tensor([amount])), nearest=True)
    assert (
        y == REFERENCE[name](x, amount)
    ).float().mean() > 0.99  # but for coordinates between two pixels


@given(seed=st.integers(0, 1000), side=st.sampled_from([8, 13, 32]))
def test_counts_stay_whole(seed, side):
    """Whatever is drawn, every count is one that was there before, and none is cut off at 1."""
    x = counts(6, 3, 2, side, side) + 1
    y = augmented(x, EVERYTHING, seeded(seed))
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    assert torch.equal(y, y.round())
    for before, after in zip(x, y, strict=True):
        assert set(after.unique().tolist()) <= {0.0, *before.unique().tolist()}


def test_a_clip_moves_as_one():
    """Timesteps and polarities of a clip share its draw, and the clips of a batch do not."""
    x = counts(1, 1, 1, 64, 64).expand(64, 5, 2, 64, 64)
    y = augmented(x, AugmentConfig(nda=True), seeded())
    assert torch.equal(y, y[:, :1, :1].expand_as(y))
    assert len(torch.unique(y.flatten(1), dim=0)) > 40  # a sixth of them does not move at all


def test_a_seed_fixes_the_clips():
    """The result depends on the generator alone, and the input is left as it is."""
    x = counts(8, 3, 2, 32, 32)
    kept = x.clone()
    first = augmented(x, EVERYTHING, seeded(3))
    torch.manual_seed(5)
    assert torch.equal(first, augmented(x, EVERYTHING, seeded(3)))
    assert not torch.equal(first, augmented(x, EVERYTHING, seeded(4)))
    assert torch.equal(x, kept)


@pytest.mark.parametrize("side", [64, 128])
def test_the_ranges_are_the_peers(side):
    """Shifts reach 5/128 of the side, rotations 30 degrees, shears 0.3 rad, a cutout 11 % of it."""
    source, still = read_back(side, 600)
    middle = side // 2
    # Across one step to the right and one downwards, averaged over half of the image.
    near = slice(middle - side // 8, middle + side // 8)
    moved = source[:, :, near, near] - still[:, near, near]
    shift = moved.nanmean((2, 3))
    right = (source[:, :, near, near].diff(dim=3)).nanmean((2, 3))
    down = (source[:, :, near, near].diff(dim=2)).nanmean((2, 3))
    angle = torch.rad2deg(torch.atan2(right[:, 1], right[:, 0]))
    rotated = angle.abs() > 3
    sheared = ~rotated & (down[:, 0].abs() > 0.03)
    most = round(5 / 128 * side)
    straight = ~rotated & ~sheared & ~shift.isnan().any(1)
    for axis in range(2):
        reached = shift[straight, axis].round()
        assert (reached.min(), reached.max()) == (-most, most)
        assert not (shift[straight].round() != 0).all(1).any()  # one axis at a time
    assert -32 < angle.min() < -27 and 27 < angle.max() < 32
    slope = down[sheared, 0]
    assert -0.34 < slope.min() < -0.26 and 0.26 < slope.max() < 0.34
    assert 0.1 < rotated.float().mean() < 0.2 and 0.1 < sheared.float().mean() < 0.2


def test_a_cutout_is_a_small_square():
    """A sixth of the clips loses a square of 0.1 to 11 % of the area, anywhere in the image."""
    side = 64
    kind = torch.randint(len(OPERATIONS), (1200,), generator=seeded())  # as `nda` draws it
    assert kind.bincount().tolist() == pytest.approx([200] * 6, abs=65)  # five deviations
    y = nda(torch.ones(1200, 1, side, side), seeded())
    holes = (y == 0)[kind == OPERATIONS.index("cutout"), 0]
    areas = holes.sum((1, 2))
    for hole, area in zip(holes, areas, strict=True):
        height, width = hole.any(1).sum(), hole.any(0).sum()
        assert height == width and height * width == area
    low, high = areas.sqrt().min() + 0.5, areas.sqrt().max() - 0.5
    assert low**2 >= 0.001 * side**2 and 0.08 * side**2 < high**2 <= 0.11 * side**2
    often = holes.float().mean(0)
    assert (often[:16].sum() / often[-16:].sum()).item() == pytest.approx(1, abs=0.5)
    assert (y == 1)[kind == OPERATIONS.index("identity")].all()


def test_images_are_refused():
    """augment.nda on images is answered in one line."""
    with pytest.raises(SettingError, match=r"^augment\.nda must be false for images, .*not true$"):
        augmented(torch.rand(2, 3, 8, 8), AugmentConfig(nda=True), seeded())


def test_the_recipe_of_events_trains(tmp_path, cli):
    """The experiment on CIFAR10-DVS, made small, trains, mixes, validates and tests on files."""
    write_cifar10_dvs(tmp_path / "dvs", per_class=12)
    code, _out, err = cli(
        "train",
        "experiment=cifar10_dvs_2_256_t10",
        f"dataset.root={tmp_path / 'dvs'}",
        f"dataset.cache_dir={tmp_path / 'cache'}",
        "dataset.allow_incomplete=true",
        "dataset.split=stratified_seeded",
        "dataset.image_size=32",
        "model.patch_size=8",
        "model.dim=16",
        "model.num_heads=2",
        "timesteps=2",
        "energy=off",
        "trainer=debug",
        "logger=none",
    )
    assert code == 0, err
