"""Settings of the data: plain dataclasses that import no torch."""

from dataclasses import dataclass, field

from saformer.data.policy import parse_policy
from saformer.errors import SettingError, require


@dataclass(kw_only=True)
class DatasetConfig:
    """One dataset: where it is, what it looks like, how it is split and batched."""

    name: str
    """Key of the reader (`saformer.data.readers`)."""
    root: str | None = None
    """Folder that holds the files; null for data shipped with the package."""
    num_classes: int
    """Number of classes K."""
    in_channels: int
    """Image channels C (2 for event polarities)."""
    image_size: int
    """Side of the square image in pixels, H = W."""
    mean: list[float]
    """Per-channel mean of the training images, in units of 0..1."""
    std: list[float]
    """Per-channel standard deviation, same units."""
    batch_size: int = 64
    """Images per training step and device."""
    eval_batch_size: int = 256
    """Images per evaluation step and device; changes no result."""
    val_fraction: float = 0.1
    """Share of the training images held out for model selection, stratified by class."""
    split_seed: int = 0
    """Seed of that split; independent of the run's seed so that runs compare."""
    train_subset: int | None = None
    """Use only this many training images (stratified), null for all."""
    num_workers: int = 0
    """Loader processes; 0 is fastest while the whole set is in memory."""

    def __post_init__(self) -> None:
        for name in ("num_classes", "in_channels", "image_size", "batch_size", "eval_batch_size"):
            require(
                getattr(self, name) >= 1, f"dataset.{name}", "be at least 1", getattr(self, name)
            )
        ok = 0 < self.val_fraction < 1
        require(ok, "dataset.val_fraction", "be between 0 and 1", self.val_fraction)
        require(self.num_workers >= 0, "dataset.num_workers", "be 0 or more", self.num_workers)
        if self.train_subset is not None:
            subset = self.train_subset
            require(subset >= 1, "dataset.train_subset", "be at least 1 or null", subset)
        for name in ("mean", "std"):
            value = getattr(self, name)
            rule = f"have one value per channel ({self.in_channels})"
            require(len(value) == self.in_channels, f"dataset.{name}", rule, value)


@dataclass(kw_only=True)
class AugmentConfig:
    """Training augmentation, drawn once per sample, in a batch on the device."""

    crop_padding: int = 0
    """Random crop after padding this many pixels with zeros; 0 is off."""
    hflip: float = 0.0
    """Probability of a horizontal flip; keep 0 where it changes the label (digits)."""
    degrees: float = 0.0
    """Rotation, uniform in +-degrees."""
    translate: float = 0.0
    """Shift per axis, uniform in +- this share of the side."""
    scale: list[float] = field(default_factory=lambda: [1.0, 1.0])
    """Zoom, uniform between the two."""
    shear: float = 0.0
    """Horizontal shear, uniform in +-degrees."""
    randaugment: str | None = None
    """RandAugment as timm writes it, for example rand-m9-n1-mstd0.5; null is off."""
    randaugment_group: int = 16
    """Samples that share one RandAugment draw; smaller is more diverse and slower."""
    erase: float = 0.0
    """Probability of erasing a random rectangle (area 0.02..1/3)."""
    mixup: float = 0.0
    """Beta parameter of MixUp; 0 is off."""
    cutmix: float = 0.0
    """Beta parameter of CutMix; 0 is off. With both on, one of them is drawn per batch."""
    mix_prob: float = 1.0
    """Probability that a batch is mixed at all."""

    def __post_init__(self) -> None:
        for name in ("hflip", "erase", "mix_prob"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"augment.{name}", "be between 0 and 1", value)
        for name in ("crop_padding", "degrees", "translate", "shear", "mixup", "cutmix"):
            value = getattr(self, name)
            require(value >= 0, f"augment.{name}", "be 0 or more", value)
        require(
            self.randaugment_group >= 1,
            "augment.randaugment_group",
            "be at least 1",
            self.randaugment_group,
        )
        if self.randaugment is not None:
            parse_policy(self.randaugment)
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1]:
            raise SettingError(
                f"augment.scale must be [low, high] with 0 < low <= high, not {self.scale}"
            )
