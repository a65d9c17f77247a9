"""Files of images are decoded and cropped as torchvision does it, whichever decoder is there."""

import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import picture, pixels, save
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import InterpolationMode, functional

from saformer.data import decode as decoding
from saformer.data.decode import decode
from saformer.data.image_files import centre_crop, random_crop
from saformer.errors import DataError

sides = st.integers(1, 90)


@pytest.fixture(params=["pillow", "torchcodec"])
def decoder(request, monkeypatch) -> str:
    too_old = torch.__version__.startswith("2.6.")  # as CI runs once; torchcodec wants a newer one
    if too_old and request.param == "torchcodec":
        pytest.skip("torchcodec cannot be loaded beside the oldest torch")
    # It comes with the development tools.
    assert too_old or decoding.DECODER == "torchcodec"
    monkeypatch.setattr(decoding, "DECODER", request.param)
    return request.param


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "PNG"), ("P", "PNG"), ("L", "PNG")],
)
def test_odd_files_are_read(decoder, tmp_path, mode, kind):
    """ImageNet has grey and CMYK files, and a PNG by the name of JPEG."""
    path = tmp_path / "n02105855_2933.JPEG"
    save(path, picture(1, 40, 50).convert(mode), kind)
    image = decode(path)
    assert image.dtype == torch.uint8
    assert np.array_equal(image.numpy(), pixels(path))


@pytest.mark.parametrize("turned", range(1, 9))
def test_pictures_stand_upright(decoder, tmp_path, turned):
    """A camera's orientation is followed by either decoder."""
    image = picture(1, 16, 24)
    exif = image.getexif()
    exif[0x0112] = turned
    path = tmp_path / "turned.JPEG"
    image.save(path, exif=exif, quality=100, subsampling=0)
    upright = decode(path).float()
    back = {
        1: lambda x: x, 2: lambda x: x.flip(2), 3: lambda x: x.flip(1, 2), 4: lambda x: x.flip(1),
        5: lambda x: x.mT, 6: lambda x: x.flip(2).mT, 7: lambda x: x.flip(1, 2).mT,
        8: lambda x: x.flip(1).mT,
    }[turned](upright)  # fmt: skip
    original = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float()
    assert (back - original).abs().mean() < 3


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), height=sides, width=sides, quality=st.integers(20, 100),
       progressive=st.booleans(), subsampling=st.integers(0, 2))  # fmt: skip
def test_both_decoders_give_the_same_pixels(
    tmp_path_factory, seed, height, width, quality, progressive, subsampling
):
    """Whether torchcodec is installed changes speed and nothing else."""
    path = tmp_path_factory.mktemp("image") / "image.JPEG"
    picture(seed, height, width).save(
        path, quality=quality, progressive=progressive, subsampling=subsampling
    )
    with pytest.MonkeyPatch.context() as patch:
        one = decode(path)
        patch.setattr(decoding, "DECODER", "pillow")
        assert torch.equal(one, decode(path))
    assert torch.equal(
        centre_crop(one, 16, 0.9), centre_crop(one.contiguous(), 16, 0.9)
    )  # nor does the layout in memory, which differs


DAMAGE = {
    "empty": (b"", "found an empty file"),
    "web page": (b"<html>Please sign in</html>", "found 27 bytes that begin b'<html>Please sig'"),
    "JPEG": (None, "found a JPEG of 300 bytes that is damaged or cut off"),
    "PNG": (b"\x89PNG\r\n\x1a\n" + bytes(30), "found a PNG of 38 bytes that is damaged"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_named(decoder, tmp_path, damage):
    """The decoders' own messages name no file; ours does, and is the same for both."""
    content, message = DAMAGE[damage]
    buffer = io.BytesIO()
    picture(1).save(buffer, "JPEG")
    path = tmp_path / "one.JPEG"
    path.write_bytes(buffer.getvalue()[:300] if content is None else content)
    with pytest.raises(DataError) as error:
        decode(path)
    assert str(error.value).startswith(f"{path}: expected an image, {message}")


@pytest.mark.parametrize("length", [0.02, 0.3, 0.9, 0.999])
def test_no_part_of_a_jpeg_passes_for_the_whole(decoder, tmp_path, length):
    """Wherever a file was cut off, it is refused."""
    path = tmp_path / "one.JPEG"
    save(path, picture(3, 80, 90))
    data = path.read_bytes()
    path.write_bytes(data[: int(length * len(data))])
    with pytest.raises(DataError):
        decode(path)


# Crops


@settings(max_examples=60, deadline=None)
@given(height=sides, width=sides, size=st.integers(1, 40), crop_pct=st.floats(0.5, 1))
def test_the_crop_of_an_evaluation_is_torchvisions(height, width, size, crop_pct):
    """Shorter side to size / crop_pct, bicubic, then the centre: to the bit."""
    image = torch.from_numpy(np.asarray(picture(0, height, width)).copy()).permute(2, 0, 1)
    expected = functional.resize(
        image, [math.floor(size / crop_pct)], InterpolationMode.BICUBIC, antialias=True
    )
    expected = functional.center_crop(expected, [size, size])
    assert torch.equal(centre_crop(image, size, crop_pct), expected)


@settings(max_examples=200, deadline=None)
@given(height=sides, width=sides, low=st.floats(0.01, 1), seed=st.integers(0, 999))
def test_a_random_crop_is_within_the_image(height, width, low, seed):
    """Area and ratio are those asked for, up to rounding and to what fits into the image."""
    rows, columns = random_crop(height, width, (low, 1.0), np.random.default_rng(seed))
    h, w = rows.stop - rows.start, columns.stop - columns.start
    assert 0 <= rows.start < rows.stop <= height and 0 <= columns.start < columns.stop <= width
    assert (w - 0.5) / (h + 0.5) <= 4 / 3 + 1e-9 and (w + 0.5) / (h - 0.5) >= 3 / 4 - 1e-9
    if 3 / 4 <= width / height <= 4 / 3:  # else the largest part of that ratio may be smaller
        assert (h + 0.5) * (w + 0.5) >= low * height * width * (1 - 1e-9)


@pytest.mark.parametrize(("height", "width"), [(300, 400), (100, 100), (100, 500), (333, 50)])
@pytest.mark.parametrize("area", [(0.08, 1.0), (1.0, 1.0)])
def test_random_crops_are_distributed_as_torchvisions(height, width, area):
    """Mean and spread of sides and places agree with RandomResizedCrop.get_params."""
    rng = np.random.default_rng(0)
    ours = []
    for _ in range(3000):
        rows, columns = random_crop(height, width, area, rng)
        ours.append(
            (rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start)
        )
    torch.manual_seed(0)
    image = torch.empty(1, height, width)
    theirs = [RandomResizedCrop.get_params(image, list(area), [3 / 4, 4 / 3]) for _ in range(3000)]
    a, b = np.array(ours, dtype=float), np.array(theirs, dtype=float)
    error = 5 * np.sqrt((a.var(0) + b.var(0)) / 3000) + 1e-9
    assert (abs(a.mean(0) - b.mean(0)) <= error).all()
    assert (abs(a.std(0) - b.std(0)) <= 0.1 * b.std(0) + 0.1).all()
