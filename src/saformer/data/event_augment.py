"""Augmentation of event frames: one geometric operation or cutout for each clip.

The operations, their ranges and their equal probabilities are those of SNNAugmentWide, which
Spikformer, Spikingformer and QKFormer use on CIFAR10-DVS and DVS128-Gesture. SNNAugmentWide follows
Neuromorphic Data Augmentation (arXiv 2203.06145), which omits changes of brightness and colour
because event counts have neither. Our magnitudes are continuous; SNNAugmentWide has 31 steps.

B batch, C channels (timesteps and polarities), H W height and width; frames are square.
"""

import math

import torch
from torch import Generator, Tensor

from saformer.data.geometry import blank, warp

OPERATIONS = ("identity", "shear_x", "translate_x", "translate_y", "rotate", "cutout")
SHEAR = 0.3  # radians
SHIFT = 5 / 128  # of the side: 5 px of a DVS128
ROTATION = math.radians(30)
CUTOUT_AREA = (0.001, 0.11)


def nda(x: Tensor, generator: Generator) -> Tensor:
    """Draw one operation for each clip and apply it to all frames of the clip: [B, C, H, W].

    One nearest-pixel sampling moves all clips, so that counts stay whole numbers; pixels from
    outside the frame are 0.
    """
    kind = torch.randint(len(OPERATIONS), (len(x),), generator=generator, device=x.device)
    draws = torch.rand(3, len(x), generator=generator, device=x.device)
    y = warp(x, maps(kind, 2 * draws[0] - 1), nearest=True)
    low, high = CUTOUT_AREA
    side = (low + (high - low) * draws[0]).sqrt()
    return blank(y, side.expand(2, -1), draws[1:], kind == OPERATIONS.index("cutout"))


def maps(kind: Tensor, amount: Tensor) -> Tensor:
    """Affine maps from target to source pixels, [B, 2, 3], in units where the image spans -1..1.

    Args:
        kind: Index of the operation in `OPERATIONS` [B].
        amount: Magnitude as a share of the operation's range, -1..1 [B].
    """

    def only(name: str, most: float) -> Tensor:
        return most * amount * (kind == OPERATIONS.index(name))

    angle, slope = only("rotate", ROTATION), only("shear_x", SHEAR).tan()
    right, down = only("translate_x", 2 * SHIFT), only("translate_y", 2 * SHIFT)
    row_x = torch.stack([angle.cos(), slope - angle.sin(), -right], 1)
    row_y = torch.stack([angle.sin(), angle.cos(), -down], 1)
    return torch.stack([row_x, row_y], 1)
