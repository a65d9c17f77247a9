"""RandAugment does to a batch what timm does to one PIL image."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from saformer.data.augment import augment, crop_flip
from saformer.data.policy import Policy, parse_policy
from saformer.data.randaugment import OPERATIONS, argument, rand_augment
from saformer.data.settings import AugmentConfig, RandAugmentOps
from saformer.errors import SettingError


def augmented(x, config, generator):
    """The whole of what a batch goes through before it is normalised."""
    return augment(crop_flip(x, config, generator), config, generator)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(channels: int = 3, side: int = 16) -> np.ndarray:
    """A smooth picture with some noise on it, uint8 [H, W] or [H, W, 3]."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] / side
    planes = [110 + 80 * np.sin(3 * x + c) * np.cos(4 * y) for c in range(channels)]
    array = np.stack(planes, -1) + rng.uniform(-20, 20, (side, side, channels))
    return np.clip(array, 0, 255).astype(np.uint8).squeeze()


def to_batch(array: np.ndarray) -> torch.Tensor:
    x = torch.from_numpy(np.atleast_3d(array)).permute(2, 0, 1)
    return x.unsqueeze(0).float() / 255


def to_array(x: torch.Tensor) -> np.ndarray:
    return (x[0] * 255).permute(1, 2, 0).numpy().squeeze()


def solarize_add(image: Image.Image, add: float) -> Image.Image:
    table = [min(255, i + int(add)) if i < 128 else i for i in range(256)]
    return image.point(table * len(image.getbands()))


PIL_OPERATIONS = {
    "AutoContrast": (lambda image, _: ImageOps.autocontrast(image), [0], 1),
    "Equalize": (lambda image, _: ImageOps.equalize(image), [0], 0),
    "Invert": (lambda image, _: ImageOps.invert(image), [0], 0),
    "Posterize": (lambda image, bits: ImageOps.posterize(image, bits), [1, 2, 3, 4], 0),
    "Solarize": (lambda image, level: ImageOps.solarize(image, level), [0, 26, 128, 256], 0),
    "SolarizeAdd": (solarize_add, [0, 11, 99, 110], 0),
    "Color": (lambda image, f: ImageEnhance.Color(image).enhance(f), [0.1, 0.5, 1, 1.9], 1.5),
    "Contrast": (lambda image, f: ImageEnhance.Contrast(image).enhance(f), [0.1, 1, 1.9], 1.5),
    "Brightness": (lambda image, f: ImageEnhance.Brightness(image).enhance(f), [0.1, 1, 1.9], 1),
    "Sharpness": (lambda image, f: ImageEnhance.Sharpness(image).enhance(f), [0.1, 1, 1.9], 1.5),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", PIL_OPERATIONS)
def test_colours_change_as_in_pil(name, channels):
    """Each operation on grey levels and colours agrees with PIL's, to PIL's rounding."""
    array = picture(channels)
    reference, settings, tolerance = PIL_OPERATIONS[name]
    for value in settings:
        expected = np.asarray(reference(Image.fromarray(array), value), dtype=float)
        found = to_array(OPERATIONS[name](to_batch(array), value))
        assert np.abs(found - expected).max() <= tolerance + 1e-3, value


PIL_MOVES = {
    "Rotate": lambda image, degrees, **fill: image.rotate(degrees, **fill),
    "ShearX": lambda image, s, **fill: transform(image, (1, s, 0, 0, 1, 0), **fill),
    "ShearY": lambda image, s, **fill: transform(image, (1, 0, 0, s, 1, 0), **fill),
    "TranslateX": lambda image, s, **fill: transform(image, (1, 0, 16 * s, 0, 1, 0), **fill),
    "TranslateY": lambda image, s, **fill: transform(image, (1, 0, 0, 0, 1, 16 * s), **fill),
}


def transform(image, coefficients, **fill):
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, **fill)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", PIL_MOVES)
def test_pixels_move_as_in_pil(name, channels):
    """Each move agrees with PIL's in size and direction, away from the border of the image."""
    array = picture(channels)
    value = {"Rotate": 27, "ShearX": 0.27, "ShearY": 0.27}.get(name, 0.2)
    options = {"resample": Image.Resampling.BILINEAR}
    for signed in (value, -value):
        expected = np.asarray(PIL_MOVES[name](Image.fromarray(array), signed, **options), float)
        # White that moves with the image: what is still pure white has no outside in it.
        white = torch.ones(1, channels, 16, 16)
        whole = to_array(OPERATIONS[name](white, signed)) > 254.99
        found = to_array(OPERATIONS[name](to_batch(array), signed))
        assert whole.mean() > 0.5
        assert np.abs(found - expected)[whole].max() <= 1.01, signed
        corners = to_array(OPERATIONS[name](white * 0, signed))
        assert corners.max() == pytest.approx(128) and corners.min() == 0


@pytest.mark.parametrize(
    ("name", "magnitude", "plain", "increasing"),
    [
        ("Rotate", 9, 27, 27),
        ("ShearX", 9, 0.27, 0.27),
        ("ShearY", 10, 0.3, 0.3),
        ("TranslateX", 10, 0.45, 0.45),
        ("TranslateY", 9, 0.405, 0.405),
        ("Posterize", 9, 3, 1),
        ("Posterize", 10, 4, 0),
        ("Solarize", 9, 230, 26),
        ("Solarize", 0, 0, 256),
        ("SolarizeAdd", 9, 99, 99),
        ("Color", 9, 1.72, 1.81),
        ("Contrast", 0, 0.1, 1.0),
        ("Brightness", 10, 1.9, 1.9),
        ("Sharpness", 5, 1.0, 1.45),
    ],
)
def test_magnitudes_are_timms(name, magnitude, plain, increasing):
    """Magnitudes turn into the settings that timm's formulas give."""
    assert argument(name, magnitude, 1, False) == pytest.approx(plain)
    assert argument(name, magnitude, 1, True) == pytest.approx(increasing)


@pytest.mark.parametrize("inverted", [False, True])
def test_solarising_cuts_between_grey_levels(inverted):
    """Each threshold inverts exactly the levels from it on, also after another operation."""
    levels = torch.arange(256).float()
    x = 1 - levels.flip(0) / 255 if inverted else levels / 255
    for threshold in range(257):
        found = OPERATIONS["Solarize"](x, threshold) * 255
        expected = torch.where(levels < threshold, levels, 255 - levels)
        assert torch.equal(found.round(), expected)


def test_no_bits_are_black():
    """Posterising to no bit at all, which PIL has come to refuse, gives black as it did in timm."""
    assert OPERATIONS["Posterize"](to_batch(picture()), 0).max() == 0


def test_directions_are_timms():
    """Moves go either way, blends below 1 stop at 0.1, and the others know no direction."""
    for name in OPERATIONS:
        there, back = argument(name, 10, 1, True), argument(name, 10, -1, True)
        if name in ("Color", "Contrast", "Brightness", "Sharpness"):
            assert (there, back) == pytest.approx((1.9, 0.1))
        elif name in PIL_MOVES:
            assert there == -back > 0
        else:
            assert there == back


def test_the_operations_are_timms_fifteen():
    """There are fifteen, and each changes a picture at magnitude 9 but colour on grey ones."""
    assert len(OPERATIONS) == 15
    for channels in (1, 3):
        x = to_batch(picture(channels))
        still = {
            name
            for name, operation in OPERATIONS.items()
            if torch.equal(operation(x, argument(name, 9, 1, True)), x)
        }
        assert still == ({"Color"} if channels == 1 else set())


def test_a_group_shares_its_draw():
    """Samples of a group are treated alike, groups are not, and a short last group is a group."""
    x = to_batch(picture()).expand(34, -1, -1, -1)
    y = rand_augment(x, Policy(p=1.0), 4, seeded())
    groups = y.split(4)
    assert [len(group) for group in groups] == [4] * 8 + [2]
    assert all(torch.equal(group, group[:1].expand_as(group)) for group in groups)
    assert len(torch.unique(y.flatten(1), dim=0)) == 9


def test_randaugment_without_groups_draws_per_sample():
    """With groups of 1 the same image comes out differently nearly everywhere in the batch."""
    x = to_batch(picture()).expand(40, -1, -1, -1)
    config = AugmentConfig(randaugment="rand-m9-n2-mstd0.5-p1", randaugment_group=1)
    assert len(torch.unique(augmented(x, config, seeded()).flatten(1), dim=0)) > 35


def test_spikformers_choice_is_five_operations(monkeypatch):
    """randaugment_ops=spikformer draws each of its five operations alike, and timm's no other."""
    seen = []
    for name in OPERATIONS:
        monkeypatch.setitem(OPERATIONS, name, lambda x, _, name=name: seen.append(name) or x)
    x = to_batch(picture()).expand(1000, -1, -1, -1)
    counts = {}
    for ops in RandAugmentOps:
        seen.clear()
        config = AugmentConfig(
            randaugment="rand-m9-n1-p1", randaugment_group=1, randaugment_ops=ops
        )
        augmented(x, config, seeded())
        counts[ops] = {name: seen.count(name) for name in OPERATIONS if name in seen}
    five = counts[RandAugmentOps.spikformer]
    assert set(five) == {"Equalize", "Rotate", "ShearX", "TranslateX", "TranslateY"}
    assert all(count == pytest.approx(200, abs=65) for count in five.values())  # 5 deviations
    assert set(counts[RandAugmentOps.timm]) == set(OPERATIONS)


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_an_operation_is_applied_with_its_probability(p):
    """None, half or all of the groups are changed."""
    x = to_batch(picture()).expand(1000, -1, -1, -1)
    y = rand_augment(x, Policy(m=9, n=1, p=p, inc=True), 1, seeded())
    changed = (y != x).flatten(1).any(1).float().mean().item()
    assert changed == pytest.approx(p, abs=0.06 * (0 < p < 1))


def test_the_magnitude_varies_by_its_noise(monkeypatch):
    """Magnitudes are drawn about `m` with deviation `mstd` and cut at 10."""
    seen = []
    monkeypatch.setitem(OPERATIONS, "Rotate", lambda x, degrees: seen.append(abs(degrees)) or x)
    x = to_batch(picture()).expand(1500, -1, -1, -1)
    rand_augment(x, Policy(m=5, n=3, mstd=1, p=1.0), 1, seeded())
    magnitudes = np.array(seen) / 3
    assert len(seen) == pytest.approx(300, abs=85)  # one in fifteen of 4500
    assert magnitudes.mean() == pytest.approx(5, abs=0.3)
    assert magnitudes.std() == pytest.approx(1, abs=0.2)
    seen.clear()
    rand_augment(x, Policy(m=9, n=3, mstd=5, p=1.0), 1, seeded())
    assert max(seen) == pytest.approx(30) and min(seen) >= 0


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("rand", Policy(m=10, n=2, mstd=0, p=0.5, inc=False)),
        ("rand-m9-n1-mstd0.4-inc1", Policy(m=9, n=1, mstd=0.4, inc=True)),
        ("rand-inc0-p1-n3-m0", Policy(m=0, n=3, p=1, inc=False)),
        ("rand-m10-mstd10-p0.25", Policy(m=10, mstd=10, p=0.25)),
    ],
)
def test_timm_strings_are_read(text, policy):
    """Parts come in any order, and what is left out has timm's default."""
    assert parse_policy(text) == policy


@pytest.mark.parametrize(
    "text",
    [
        "",
        "m9-n1",
        "augmix-m5",
        "original",
        "rand-",
        "rand-x9",
        "rand-w0",
        "rand-m",
        "rand-m11",
        "rand-m10.5",
        "rand-m-1",
        "rand-n0",
        "rand-n1.5",
        "rand-mstdinf",
        "rand-p1.5",
        "rand-inc2",
        "rand_m9",
        "rand-m9 n1",
        "rand-m9\n",
    ],
)
def test_other_strings_are_refused(text):
    """The answer names the setting, what may stand there, and what stands there."""
    with pytest.raises(SettingError) as error:
        parse_policy(text)
    message = str(error.value)
    assert message.startswith("augment.randaugment must be rand with any of m (0 to 10)")
    assert message.endswith(f"not {text}")
