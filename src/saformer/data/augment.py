"""Augmentation of a training batch on its device, with one draw per sample.

In order: `augment` on images in 0..1, normalisation (the caller's), `erase`, `mix`. Every random
number comes from the generator that is passed in, never from a global one: its state fixes the
result bit for bit, and a checkpoint that holds it resumes the very same run.

B batch, T timesteps, C channels, H W height and width, K classes; images are square.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from saformer.data.geometry import affine, crop, hflip
from saformer.data.policy import parse_policy
from saformer.data.randaugment import rand_augment
from saformer.data.settings import AugmentConfig
from saformer.errors import SettingError

ERASE_AREA = (0.02, 1 / 3)
ERASE_ASPECT = 1 / 0.3


def augment(x: Tensor, config: AugmentConfig, generator: Generator) -> Tensor:
    """Crop, flip, affine map and RandAugment.

    Args:
        x: Images [B, C, H, W] in 0..1, or frames [B, T, C, H, W], whose timesteps move together.
        config: What to do.
        generator: Source of the draws, on the device of `x`.

    Returns:
        A batch of the same shape.

    Raises:
        SettingError: RandAugment is on and the batch is not of grey or colour images.
    """
    y = x.flatten(1, -3)
    y = crop(y, config.crop_padding, generator)
    y = hflip(y, config.hflip, generator)
    scale = (config.scale[0], config.scale[1])
    y = affine(y, config.degrees, config.translate, scale, config.shear, generator)
    if config.randaugment is not None:
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            raise SettingError(
                "augment.randaugment must be null for data other than grey or colour images, "
                f"not {config.randaugment}"
            )
        policy = parse_policy(config.randaugment)
        y = rand_augment(y, policy, config.randaugment_group, generator)
    return y.view(x.shape)


def erase(x: Tensor, config: AugmentConfig, generator: Generator) -> Tensor:
    """Set a random rectangle of some samples to zero, the mean of normalised data.

    The rectangle covers 0.02..1/3 of the image, and its sides are in a ratio of at most 1/0.3.

    Args:
        x: Normalised images [B, C, H, W], or frames [B, T, C, H, W].
        config: Its `erase` is the probability.
        generator: Source of the draws, on the device of `x`.
    """
    if config.erase == 0:
        return x
    height, width = x.shape[-2:]
    draws = torch.rand(5, len(x), generator=generator, device=x.device)
    area = ERASE_AREA[0] + (ERASE_AREA[1] - ERASE_AREA[0]) * draws[0]
    # Above 1/area a side would be longer than the image's.
    limit = (-area.log()).clamp(max=math.log(ERASE_ASPECT))
    aspect = torch.exp(limit * (2 * draws[1] - 1))
    rows = _interval(height, (area * aspect).sqrt(), draws[2])
    columns = _interval(width, (area / aspect).sqrt(), draws[3])
    rows &= (draws[4] < config.erase).unsqueeze(1)
    inside = rows.unsqueeze(2) & columns.unsqueeze(1)
    return x.masked_fill(inside.view(len(x), *[1] * (x.ndim - 3), height, width), 0)


def _interval(side: int, share: Tensor, place: Tensor) -> Tensor:
    """Mask [B, side] of one interval per sample.

    Args:
        side: Pixels.
        share: Length of the interval in shares of the side [B], rounded to whole pixels.
        place: Where it lies among its possible places [B], in [0, 1).
    """
    length = (side * share).round().clamp(1, side)
    start = ((side - length + 1) * place).floor()
    pixel = torch.arange(side, device=share.device)
    return (pixel >= start.unsqueeze(1)) & (pixel < (start + length).unsqueeze(1))


def mix(
    x: Tensor, y: Tensor, num_classes: int, config: AugmentConfig, generator: Generator
) -> tuple[Tensor, Tensor]:
    """MixUp or CutMix of the batch with itself in reverse order, one share for the whole batch.

    Args:
        x: Images [B, C, H, W], or frames [B, T, C, H, W].
        y: Class numbers [B].
        num_classes: Number of classes K.
        config: Its `mixup` and `cutmix` are parameters a of the share's distribution Beta(a, a).
        generator: Source of the draws, on the device of `x`.

    Returns:
        The batch, and class probabilities [B, K]; with both off, the arguments as they came.
    """
    if config.mixup == config.cutmix == 0:
        return x, y
    targets = F.one_hot(y, num_classes).to(x.dtype)
    # torch draws no Beta from a generator of our own: it seeds one of numpy's that does.
    seed = torch.randint(2**62, (1,), generator=generator, device=x.device).item()
    rng = np.random.default_rng(int(seed))
    if rng.random() >= config.mix_prob:
        return x, targets
    cut = config.cutmix > 0 and (config.mixup == 0 or rng.random() < 0.5)
    alpha = config.cutmix if cut else config.mixup
    share = rng.beta(alpha, alpha)  # of the partner
    if cut:
        rows, columns = (_cut(side, share, rng) for side in x.shape[-2:])
        mixed = x.clone()
        mixed[..., rows, columns] = x.flip(0)[..., rows, columns]
        # The border may have cut the box.
        share = mixed[0, ..., rows, columns].numel() / mixed[0].numel()
    else:
        mixed = x.lerp(x.flip(0), share)
    return mixed, targets.lerp(targets.flip(0), share)


def _cut(side: int, area: float, rng: np.random.Generator) -> slice:
    """One side of a box of this share of the area, about a uniform centre, within the image."""
    half = int(side * math.sqrt(area)) // 2
    centre = int(rng.integers(side))
    return slice(max(centre - half, 0), min(centre + half, side))
