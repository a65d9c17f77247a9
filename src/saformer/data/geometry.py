"""Crop, flip, affine maps and blank rectangles of a batch, with one draw per sample.

The functions take any number of channels: callers fold the timesteps of a frame sequence into the
channels, so that all frames move together. B batch, C channels, H W height and width; images are
square.
"""

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


def crop(x: Tensor, padding: int, generator: Generator) -> Tensor:
    """Pad with zeros and crop to the original size, at a random offset per sample: [B, C, H, W]."""
    if padding == 0:
        return x
    height, width = x.shape[-2:]
    padded = F.pad(x, [padding] * 4)
    offsets = torch.randint(2 * padding + 1, (2, len(x)), generator=generator, device=x.device)
    # From its first to its last pixel, a crop is one run of memory that also contains the ends of
    # the padded rows. To copy the run and then cut it into rows takes a quarter of the time of
    # indexing the pixels.
    side = padded.shape[-1]
    run = (height - 1) * side + width
    planes = torch.arange(len(x) * x.shape[1], device=x.device).view(x.shape[:2])
    first = planes * padded[0, 0].numel() + (offsets[0] * side + offsets[1]).unsqueeze(1)
    runs = padded.flatten().unfold(0, run, 1).index_select(0, first.flatten())
    windows: Tensor = runs.unfold(1, width, side).unflatten(0, x.shape[:2])
    return windows


def hflip(x: Tensor, probability: float, generator: Generator) -> Tensor:
    """Flip randomly chosen samples from left to right: [B, C, H, W]."""
    if probability == 0:
        return x
    flipped = torch.rand(len(x), generator=generator, device=x.device) < probability
    # Picking whole images from both halves is several times as fast as picking pixels.
    both = torch.cat([x, x.flip(-1)])
    return both.index_select(0, torch.arange(len(x), device=x.device) + len(x) * flipped)


def affine(
    x: Tensor,
    degrees: float,
    translate: float,
    scale: tuple[float, float],
    shear: float,
    generator: Generator,
    nearest: bool = False,
) -> Tensor:
    """Rotate, shift, zoom and shear about the centre, in one interpolation: [B, C, H, W].

    Args:
        x: Images.
        degrees: Largest rotation, either way.
        translate: Largest shift per axis, in shares of the side.
        scale: Smallest and largest zoom; a zoom above 1 enlarges the content.
        shear: Largest horizontal shear in degrees, either way.
        generator: Source of the draws, on the device of `x`.
        nearest: See `warp`.
    """
    if degrees == translate == shear == 0 and scale == (1, 1):
        return x
    draws = torch.rand(5, len(x), generator=generator, device=x.device)
    signed = 2 * draws - 1
    angle = math.radians(degrees) * signed[0]
    slope = torch.tan(math.radians(shear) * signed[1])
    shift = 2 * translate * signed[2:4].T.unsqueeze(-1)  # [B, 2, 1]; the side is 2 units long
    zoom = scale[0] + (scale[1] - scale[0]) * draws[4]
    # The target pixel p takes its value from the source pixel A(p - shift).
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    matrix = torch.stack([cos, cos * slope - sin, sin, sin * slope + cos], 1).view(-1, 2, 2)
    return warp(x, torch.cat([matrix, -matrix @ shift], -1), nearest=nearest)


def warp(x: Tensor, theta: Tensor, fill: float = 0.0, nearest: bool = False) -> Tensor:
    """Apply an affine map to each image.

    Args:
        x: Images [B, C, H, W] in 0..1; any values if `nearest`.
        theta: Maps from target to source [B, 2, 3] or [1, 2, 3], in units where the image spans
            -1..1.
        fill: Value of all pixels outside the image; it must be 0 if `nearest`.
        nearest: Take the nearest pixel instead of interpolating, so that event counts stay whole
            numbers.
    """
    grid = F.affine_grid(theta.expand(len(x), 2, 3), list(x.shape), align_corners=False)
    if nearest:
        return F.grid_sample(x, grid, mode="nearest", align_corners=False)
    y = F.grid_sample(x - fill, grid, align_corners=False) + fill
    return y.clamp_(0, 1)  # rounding can make the interpolation weights sum to more than 1


def blank(x: Tensor, shares: Tensor, places: Tensor, chosen: Tensor) -> Tensor:
    """Set a rectangle of some samples to zero.

    Args:
        x: Images [B, ..., H, W].
        shares: Height and width in shares of the sides [2, B], rounded to whole pixels.
        places: Position of the rectangle as a share of its free range, down and across [2, B], in
            [0, 1).
        chosen: Mask of the samples to change [B].
    """
    height, width = x.shape[-2:]
    rows = _interval(height, shares[0], places[0]) & chosen.unsqueeze(1)
    columns = _interval(width, shares[1], places[1])
    inside = rows.unsqueeze(2) & columns.unsqueeze(1)
    return x.masked_fill(inside.view(len(x), *[1] * (x.ndim - 3), height, width), 0)


def _interval(side: int, share: Tensor, place: Tensor) -> Tensor:
    """Mask [B, side] of one interval per sample."""
    length = (side * share).round().clamp(1, side)
    start = ((side - length + 1) * place).floor()
    pixel = torch.arange(side, device=share.device)
    return (pixel >= start.unsqueeze(1)) & (pixel < (start + length).unsqueeze(1))
