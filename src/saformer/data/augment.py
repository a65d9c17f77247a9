"""Augmentation of a training batch on its device, with one draw per sample.

The caller applies in this order: `crop_flip` on bytes, `augment` on images in 0..1 or on counts,
its own normalisation, `erase`, `mix`. Every random number comes from the generator that the caller
passes, never from a global one, so the generator's state determines the result bit for bit. On a
GPU the caller must pass a new generator for each batch, because draws on the CPU use only its
initial seed (`on_host`).

B batch, T timesteps, C channels, H W height and width, K classes; images are square.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from saformer.data.event_augment import nda
from saformer.data.geometry import affine, blank, crop, hflip
from saformer.data.policy import parse_policy
from saformer.data.randaugment import on_host, rand_augment
from saformer.data.settings import AugmentConfig
from saformer.errors import SettingError, require

ERASE_AREA = (0.02, 1 / 3)
ERASE_ASPECT = 1 / 0.3


def crop_flip(x: Tensor, config: AugmentConfig, generator: Generator) -> Tensor:
    """Crop and flip. Both move whole pixels, so they work on bytes with a quarter of the memory.

    Args:
        x: Images [B, C, H, W], or frames [B, T, C, H, W], whose timesteps and polarities move
            together; of any type.
        config: Augmentation settings; `crop_padding` and `hflip` are used.
        generator: Source of the draws, on the device of `x`.

    Returns:
        A batch of the same shape and type.
    """
    y = crop(x.flatten(1, -3), config.crop_padding, generator)
    return hflip(y, config.hflip, generator).view(x.shape)


def augment(x: Tensor, config: AugmentConfig, generator: Generator) -> Tensor:
    """Apply the affine map, and RandAugment for images or its counterpart for events.

    Args:
        x: Images [B, C, H, W] in 0..1, or frames of event counts [B, T, C, H, W], whose timesteps
            and polarities move together and whose counts stay whole.
        config: Augmentation settings.
        generator: Source of the draws, on the device of `x`.

    Returns:
        A batch of the same shape.

    Raises:
        SettingError: RandAugment is on but the batch does not hold grey or colour images, or the
            augmentation of events is on but the batch holds no events.
    """
    events = x.ndim == 5
    scale = (config.scale[0], config.scale[1])
    y = affine(
        x.flatten(1, -3), config.degrees, config.translate, scale, config.shear, generator, events
    )
    if config.nda:
        require(events, "augment.nda", "be false for images, which are not events", "true")
        y = nda(y, generator)
    if config.randaugment is not None:
        if events or x.shape[1] not in (1, 3):
            raise SettingError(
                "augment.randaugment must be null for data other than grey or colour images, "
                f"not {config.randaugment}"
            )
        policy = parse_policy(config.randaugment)
        ops = config.randaugment_ops
        y = rand_augment(y, policy, config.randaugment_group, generator, ops)
    return y.view(x.shape)


def erase(x: Tensor, config: AugmentConfig, generator: Generator) -> Tensor:
    """Set a random rectangle of some samples to zero, which is the mean of normalised data.

    The rectangle covers 0.02..1/3 of the image, and the ratio of its sides is at most 1/0.3.

    Args:
        x: Normalised images [B, C, H, W], or frames [B, T, C, H, W].
        config: Augmentation settings; `erase` is the probability for each sample.
        generator: Source of the draws, on the device of `x`.
    """
    if config.erase == 0:
        return x
    draws = torch.rand(5, len(x), generator=generator, device=x.device)
    area = ERASE_AREA[0] + (ERASE_AREA[1] - ERASE_AREA[0]) * draws[0]
    # With an aspect above 1/area, one side would be longer than the image.
    limit = (-area.log()).clamp(max=math.log(ERASE_ASPECT))
    aspect = torch.exp(limit * (2 * draws[1] - 1))
    shares = torch.stack([area * aspect, area / aspect]).sqrt()
    return blank(x, shares, draws[2:4], draws[4] < config.erase)


def mix(
    x: Tensor, y: Tensor, num_classes: int, config: AugmentConfig, generator: Generator
) -> tuple[Tensor, Tensor]:
    """MixUp or CutMix of the batch with its reverse order; one share holds for the whole batch.

    Args:
        x: Images [B, C, H, W], or frames [B, T, C, H, W].
        y: Class numbers [B].
        num_classes: Number of classes K.
        config: Augmentation settings; the share is drawn from Beta(a, a), where a is `mixup` or
            `cutmix`.
        generator: Source of the draws, see `on_host`.

    Returns:
        The batch, and class probabilities [B, K]. If MixUp and CutMix are off: `x` and `y`
        unchanged.
    """
    if config.mixup == config.cutmix == 0:
        return x, y
    targets = F.one_hot(y, num_classes).to(x.dtype)
    # torch cannot draw from Beta with a given generator, so ours seeds a numpy generator.
    seed = torch.randint(2**62, (1,), generator=on_host(generator)).item()
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
        # The border of the image may have cut the box, so we count its pixels.
        share = mixed[0, ..., rows, columns].numel() / mixed[0].numel()
    else:
        mixed = x.lerp(x.flip(0), share)
    return mixed, targets.lerp(targets.flip(0), share)


def _cut(side: int, area: float, rng: np.random.Generator) -> slice:
    """One side of a box with this share of the area; its centre is uniform, the border cuts it."""
    half = int(side * math.sqrt(area)) // 2
    centre = int(rng.integers(side))
    return slice(max(centre - half, 0), min(centre + half, side))
