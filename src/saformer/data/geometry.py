"""Crop, flip and affine maps of a batch, with one draw per sample.

They take any number of channels, so a sequence of frames folds its timesteps into the channels and
moves as one. B batch, C channels, H W height and width; images are square.
"""

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


def crop(x: Tensor, padding: int, generator: Generator) -> Tensor:
    """Pad with zeros and cut out the size of before, at an offset per sample: [B, C, H, W]."""
    if padding == 0:
        return x
    windows = F.pad(x, [padding] * 4).unfold(2, x.shape[2], 1).unfold(3, x.shape[3], 1)
    offsets = torch.randint(2 * padding + 1, (2, len(x)), generator=generator, device=x.device)
    return windows[torch.arange(len(x), device=x.device), :, offsets[0], offsets[1]]


def hflip(x: Tensor, probability: float, generator: Generator) -> Tensor:
    """Flip some of the samples from left to right: [B, C, H, W]."""
    if probability == 0:
        return x
    flipped = torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device) < probability
    return torch.where(flipped, x.flip(-1), x)


def affine(
    x: Tensor,
    degrees: float,
    translate: float,
    scale: tuple[float, float],
    shear: float,
    generator: Generator,
) -> Tensor:
    """Rotate, shift, zoom and shear about the centre, in one interpolation: [B, C, H, W].

    Args:
        x: Images.
        degrees: Largest rotation, either way.
        translate: Largest shift per axis, in shares of the side.
        scale: Smallest and largest zoom; above 1 the content grows.
        shear: Largest horizontal shear in degrees, either way.
        generator: Source of the draws, on the device of `x`.
    """
    if degrees == translate == shear == 0 and scale == (1, 1):
        return x
    draws = torch.rand(5, len(x), generator=generator, device=x.device)
    signed = 2 * draws - 1
    angle = math.radians(degrees) * signed[0]
    slope = torch.tan(math.radians(shear) * signed[1])
    shift = 2 * translate * signed[2:4].T.unsqueeze(-1)  # [B, 2, 1]; the side is 2 units long
    zoom = scale[0] + (scale[1] - scale[0]) * draws[4]
    # A target pixel p takes its value from the source at A(p - shift).
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    matrix = torch.stack([cos, cos * slope - sin, sin, sin * slope + cos], 1).view(-1, 2, 2)
    return warp(x, torch.cat([matrix, -matrix @ shift], -1))


def warp(x: Tensor, theta: Tensor, fill: float = 0.0) -> Tensor:
    """Sample each image at affinely moved places, bilinearly.

    Args:
        x: Images [B, C, H, W] in 0..1.
        theta: Maps of target to source [B, 2, 3] or [1, 2, 3], in units where the image spans
            -1..1.
        fill: Value of everything outside the image.
    """
    grid = F.affine_grid(theta.expand(len(x), 2, 3), list(x.shape), align_corners=False)
    y = F.grid_sample(x - fill, grid, align_corners=False) + fill
    return y.clamp_(0, 1)  # the weights of the interpolation add up to 1 but for rounding
