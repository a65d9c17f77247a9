"""Augmentation of a training batch on its device, with one draw per sample.

In order: `crop_flip` on bytes, `augment` on images in 0..1 or on counts, normalisation (the
caller's), `erase`, `mix`. Every random number comes from the generator that is passed in, never
from a global one: its state fixes the result bit for bit. On a GPU it is to be a new one for each
batch: of what the CPU must know it fixes no more than the seed (`on_host`).

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
    """Crop and flip: what moves pixels whole, and so is done on bytes, a quarter of the memory.

    Args:
        x: Images [B, C, H, W], or frames [B, T, C, H, W], whose timesteps and polarities move
            together; of any type.
        config: Its `crop_padding` and `hflip`.
        generator: Source of the draws, on the device of `x`.

    Returns:
        A batch of the same shape and type.
    """
    y = crop(x.flatten(1, -3), config.crop_padding, generator)
    return hflip(y, config.hflip, generator).view(x.shape)


def augment(x: Tensor, config: AugmentConfig, generator: Generator) -> Tensor:
    """Affine map, and RandAugment or its counterpart for events.

    Args:
        x: Images [B, C, H, W] in 0..1, or frames of event counts [B, T, C, H, W], whose timesteps
            and polarities move together and whose counts stay whole.
        config: What to do.
        generator: Source of the draws, on the device of `x`.

    Returns:
        A batch of the same shape.

    Raises:
        SettingError: RandAugment is on and the batch is not of grey or colour images, or the
            augmentation of events is on and it is not of events.
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
    """Set a random rectangle of some samples to zero, the mean of normalised data.

    The rectangle covers 0.02..1/3 of the image, and its sides are in a ratio of at most 1/0.3.

    Args:
        x: Normalised images [B, C, H, W], or frames [B, T, C, H, W].
        config: Its `erase` is the probability.
        generator: Source of the draws, on the device of `x`.
    """
    if config.erase == 0:
        return x
    draws = torch.rand(5, len(x), generator=generator, device=x.device)
    area = ERASE_AREA[0] + (ERASE_AREA[1] - ERASE_AREA[0]) * draws[0]
    # Above 1/area a side would be longer than the image's.
    limit = (-area.log()).clamp(max=math.log(ERASE_ASPECT))
    aspect = torch.exp(limit * (2 * draws[1] - 1))
    shares = torch.stack([area * aspect, area / aspect]).sqrt()
    return blank(x, shares, draws[2:4], draws[4] < config.erase)


def mix(
    x: Tensor, y: Tensor, num_classes: int, config: AugmentConfig, generator: Generator
) -> tuple[Tensor, Tensor]:
    """MixUp or CutMix of the batch with itself in reverse order, one share for the whole batch.

    Args:
        x: Images [B, C, H, W], or frames [B, T, C, H, W].
        y: Class numbers [B].
        num_classes: Number of classes K.
        config: Its `mixup` and `cutmix` are parameters a of the share's distribution Beta(a, a).
        generator: Source of the draws, through `on_host`.

    Returns:
        The batch, and class probabilities [B, K]; with both off, the arguments as they came.
    """
    if config.mixup == config.cutmix == 0:
        return x, y
    targets = F.one_hot(y, num_classes).to(x.dtype)
    # torch draws no Beta from a generator of our own: it seeds one of numpy's that does.
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
