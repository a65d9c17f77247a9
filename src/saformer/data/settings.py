"""Settings of the data: plain dataclasses that import no torch."""

from dataclasses import dataclass, field
from enum import Enum

from saformer.data.policy import parse_policy
from saformer.errors import SettingError, require


class Split(str, Enum):
    """Which items are for testing; see `saformer.data.splits`."""

    official = "official"
    peer_last10 = "peer_last10"
    tebn_first100 = "tebn_first100"
    stratified_seeded = "stratified_seeded"


class SplitBy(str, Enum):
    """How a recording is cut into T frames: equally many events, or equally long."""

    number = "number"
    time = "time"


class Resize(str, Enum):
    """How frames get smaller: events are binned, or frames resized bilinearly as by SDT."""

    bin = "bin"
    bilinear = "bilinear"


class Norm(str, Enum):
    """What becomes of the counts in a frame; see `saformer.data.events.normalise`."""

    none = "none"
    max = "max"
    clip1 = "clip1"
    log1p = "log1p"


class BadRecordings(str, Enum):
    """A recording that cannot be read stops the build, or is left out and listed."""

    error = "error"
    skip = "skip"


@dataclass(kw_only=True)
class EventConfig:
    """How recordings of events become frames; everything but `norm` makes another cache."""

    split_by: SplitBy = SplitBy.number
    """Frames of equally many events (the peers' way) or of equal duration."""
    resize: Resize = Resize.bin
    """From the sensor to `dataset.image_size`: `bin` keeps every event and whole numbers."""
    norm: Norm = Norm.none
    """Counts as they are, over the clip's largest, cut at 1, or log(1 + n)."""
    bad_recordings: BadRecordings = BadRecordings.error
    """`skip` leaves out up to 0.1 % of the recordings and lists them."""


@dataclass(kw_only=True)
class DatasetConfig:
    """One dataset: where it is, what it looks like, how it is split and batched."""

    name: str
    """Name shown in results, and that of the reader (`saformer.data.readers`)."""
    reader: str | None = None
    """Module that reads it, of another name than the dataset or your own (docs/extend.md)."""
    root: str | None = None
    """Folder that holds the files; null for data shipped with the package."""
    num_classes: int
    """Number of classes K."""
    in_channels: int
    """Image channels C (2 for event polarities)."""
    image_size: int
    """Side of the square image in pixels, H = W."""
    crop_pct: float = 1.0
    """Share of the side that is kept of an image decoded for evaluation (ImageNet)."""
    mean: list[float]
    """Mean of the training images in units of 0..1 (event frames: of counts), for each channel, or
    one for all."""
    std: list[float]
    """Per-channel standard deviation, same units."""
    flippable: bool = True
    """Whether a mirrored image keeps its class; if not, augment.hflip is refused."""
    split: Split = Split.official
    """Which items are for testing; anything but official only where there is no official split."""
    batch_size: int = 64
    """Images per training step and device."""
    eval_batch_size: int = 256
    """Images per evaluation step and device; changes no result but the energy of a validation,
    which counts whole batches, and what model.encoding=rate draws."""
    val_fraction: float = 0.1
    """Share of the training images held out for model selection, stratified by class."""
    split_seed: int = 0
    """Seed of that split, and of stratified_seeded; not the run's, so that runs compare."""
    train_subset: int | None = None
    """Use only this many training images (stratified), null for all."""
    num_workers: int = 0
    """Loader processes; 0 is fastest unless images are decoded (ImageNet)."""
    cache_dir: str | None = None
    """Folder of what is built from the files once; null where nothing is."""
    device_resident: bool = False
    """Keep the whole set as uint8 on the device: no loading at all in a step."""
    allow_incomplete: bool = False
    """Use a set of recordings or images of which some are missing; results are not comparable."""
    events: EventConfig | None = None
    """How events become frames; null for images."""

    def __post_init__(self) -> None:
        for name in ("num_classes", "in_channels", "image_size", "batch_size", "eval_batch_size"):
            require(
                getattr(self, name) >= 1, f"dataset.{name}", "be at least 1", getattr(self, name)
            )
        ok = 0 < self.val_fraction < 1
        require(ok, "dataset.val_fraction", "be between 0 and 1", self.val_fraction)
        require(self.num_workers >= 0, "dataset.num_workers", "be 0 or more", self.num_workers)
        rule = "be above 0 and at most 1"
        require(0 < self.crop_pct <= 1, "dataset.crop_pct", rule, self.crop_pct)
        if self.train_subset is not None:
            subset = self.train_subset
            require(subset >= 1, "dataset.train_subset", "be at least 1 or null", subset)
        require(self.split_seed >= 0, "dataset.split_seed", "be 0 or more", self.split_seed)
        require(min(self.std, default=1) > 0, "dataset.std", "be positive", self.std)
        for name in ("mean", "std"):
            value = getattr(self, name)
            rule = f"have one value, or one per channel ({self.in_channels})"
            require(len(value) in (1, self.in_channels), f"dataset.{name}", rule, value)


class RandAugmentOps(str, Enum):
    """What RandAugment draws from; see `saformer.data.randaugment`."""

    timm = "timm"
    spikformer = "spikformer"


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
    randaugment_ops: RandAugmentOps = RandAugmentOps.timm
    """Operations it draws from: timm's 15, or the five that Spikformer uses on CIFAR."""
    resized_crop: list[float] | None = None
    """Random crop of low..high of the area while an image is decoded (ImageNet); null is off."""
    nda: bool = False
    """One of identity, shear, two translations, rotation and cutout for each clip of events."""
    erase: float = 0.0
    """Probability of erasing a random rectangle (area 0.02..1/3)."""
    mixup: float = 0.0
    """Beta parameter of MixUp; 0 is off."""
    cutmix: float = 0.0
    """Beta parameter of CutMix; 0 is off. With both on, one of them is drawn per batch."""
    mix_prob: float = 1.0
    """Probability that a batch is mixed at all."""
    mixup_off_epoch: int | None = None
    """Mix no more from this epoch on (the first is 0); null mixes to the end."""

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
        if self.mixup_off_epoch is not None:
            off = self.mixup_off_epoch
            require(off >= 0, "augment.mixup_off_epoch", "be 0 or more, or null", off)
        if self.randaugment is not None:
            parse_policy(self.randaugment)
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1]:
            raise SettingError(
                f"augment.scale must be [low, high] with 0 < low <= high, not {self.scale}"
            )
        area = self.resized_crop
        if area is not None:
            ok = len(area) == 2 and 0 < area[0] <= area[1] <= 1
            rule = "be null or [low, high] with 0 < low <= high <= 1"
            require(ok, "augment.resized_crop", rule, area)
