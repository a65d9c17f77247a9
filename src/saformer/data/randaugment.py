"""RandAugment on batches, with the operations and magnitudes of timm.

The reference is timm's `timm/data/auto_augment.py` (Apache-2.0), which works on one PIL image at a
time. Ours works on float images in 0..1, in groups that share a draw. It differs in three points:
interpolation is always bilinear; pixels from outside the image are mid-grey (timm's own default,
but timm's training script fills in the mean of the dataset); only posterise and equalise round to
8 bits.

B batch, C channels, H W height and width; images are square.
"""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional as TF

from saformer.data.geometry import warp
from saformer.data.policy import Policy
from saformer.data.settings import RandAugmentOps

FILL = 128 / 255
SIGNED = {"Rotate": 30.0, "ShearX": 0.3, "ShearY": 0.3, "TranslateX": 0.45, "TranslateY": 0.45}
BLENDS = ("Color", "Contrast", "Brightness", "Sharpness")
# From Spikformer's cifar10/aa_snn.py; like all of ours, its translations are timm's relative ones.
SPIKFORMER = ["Equalize", "Rotate", "ShearX", "TranslateX", "TranslateY"]


def rand_augment(
    x: Tensor,
    policy: Policy,
    group: int,
    generator: Generator,
    ops: RandAugmentOps = RandAugmentOps.timm,
) -> Tensor:
    """Apply RandAugment; `group` consecutive samples share operation, magnitude and direction.

    Args:
        x: Images [B, C, H, W] in 0..1, C is 1 or 3.
        policy: Number, magnitude and probability of the operations.
        group: Samples per draw.
        generator: Source of the draws, see `on_host`; on a GPU pass a new one for each batch.
        ops: Operations to draw from: timm's 15, or the five of them that Spikformer uses.
    """
    chunks = list(x.split(group))
    names = SPIKFORMER if ops is RandAugmentOps.spikformer else list(OPERATIONS)
    shape = (len(chunks), policy.n)
    generator = on_host(generator)
    draws = torch.rand(*shape, 3, generator=generator).tolist()
    noise = torch.randn(shape, generator=generator).tolist()
    for i in range(len(chunks)):
        for (which, applied, direction), normal in zip(draws[i], noise[i], strict=True):
            if applied >= policy.p:
                continue
            name = names[int(which * len(names))]
            magnitude = min(max(policy.m + policy.mstd * normal, 0), 10)
            value = argument(name, magnitude, 1 if direction < 0.5 else -1, policy.inc)
            chunks[i] = OPERATIONS[name](chunks[i], value)
    return torch.cat(chunks)


def on_host(generator: Generator) -> Generator:
    """Return a CPU generator as it is, or for a GPU generator a new CPU one with its initial seed.

    The CPU needs these draws. If the GPU drew them, the CPU would have to wait until the GPU has
    finished all queued work.
    """
    if generator.device.type == "cpu":
        return generator
    return torch.Generator().manual_seed(generator.initial_seed())


def argument(name: str, magnitude: float, sign: int, inc: bool) -> float:
    """The argument that an operation takes at a magnitude.

    Args:
        name: A key of `OPERATIONS`.
        magnitude: 0..10.
        sign: 1 or -1, for operations that have two directions.
        inc: Whether the operation gets stronger with the magnitude.

    Returns:
        Degrees, slope, share of the side, blend factor, bits to keep, or grey level 0..256.
    """
    level = magnitude / 10
    if name in SIGNED:
        return sign * level * SIGNED[name]
    if name in BLENDS:
        return max(0.1, 1 + sign * 0.9 * level) if inc else 0.1 + 1.8 * level
    if name == "SolarizeAdd":
        return int(level * 110)
    largest = {"Posterize": 4, "Solarize": 256}.get(name, 0)
    return largest - int(level * largest) if inc else int(level * largest)


def _in_bytes(operation: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply an operation that is defined on the grey levels 0..255."""
    return operation((x * 255).round().to(torch.uint8)).to(x.dtype) / 255


def _below(x: Tensor, level: float) -> Tensor:
    """Mask of the grey levels below `level`; the -0.5 avoids errors by rounding."""
    return x < (level - 0.5) / 255


def _move(x: Tensor, row_x: list[float], row_y: list[float]) -> Tensor:
    """Warp all images by one map from target to source."""
    theta = torch.tensor([[row_x, row_y]], dtype=x.dtype).to(x.device, non_blocking=True)
    # As channels of one image, all share the interpolation weights: this is several times as fast.
    return warp(x.flatten(0, 1)[None], theta, FILL).view(x.shape)


def _rotate(x: Tensor, degrees: float) -> Tensor:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return _move(x, [cos, -sin, 0], [sin, cos, 0])


# PIL shears about the upper left corner: the source column is x + slope * y, counted from there.
# A blend factor means the same in PIL and torchvision: 1 is the image, 0 the fully changed image.
OPERATIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "AutoContrast": lambda x, _: TF.autocontrast(x),
    "Equalize": lambda x, _: _in_bytes(TF.equalize, x),
    "Invert": lambda x, _: 1 - x,
    "Rotate": _rotate,
    "Posterize": lambda x, bits: _in_bytes(lambda y: TF.posterize(y, int(bits)), x),
    "Solarize": lambda x, level: torch.where(_below(x, level), x, 1 - x),
    # At most 110 is added, so that no level exceeds white.
    "SolarizeAdd": lambda x, add: torch.where(_below(x, 128), x + add / 255, x),
    "Color": TF.adjust_saturation,
    "Contrast": TF.adjust_contrast,
    "Brightness": TF.adjust_brightness,
    "Sharpness": TF.adjust_sharpness,
    "ShearX": lambda x, slope: _move(x, [1, slope, slope], [0, 1, 0]),
    "ShearY": lambda x, slope: _move(x, [1, 0, 0], [slope, 1, slope]),
    "TranslateX": lambda x, share: _move(x, [1, 0, 2 * share], [0, 1, 0]),
    "TranslateY": lambda x, share: _move(x, [1, 0, 0], [0, 1, 2 * share]),
}
