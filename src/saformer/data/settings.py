"""Settings of the data: plain dataclasses that import no torch."""

from dataclasses import dataclass, field
from enum import Enum

from saformer.data.policy import parse_policy
from saformer.errors import require
from saformer.names import require_name
from saformer.ranges import at_least, positive, require_ranges, within


class Split(str, Enum):
    """How the test items are chosen; see `saformer.data.splits`."""

    official = "official"
    peer_last10 = "peer_last10"
    tebn_first100 = "tebn_first100"
    stratified_seeded = "stratified_seeded"


class SplitBy(str, Enum):
    """How a recording is cut into T frames: with equally many events, or of equal duration."""

    number = "number"
    time = "time"


class Resize(str, Enum):
    """How frames get smaller: events are binned, or frames are resized bilinearly as in SDT."""

    bin = "bin"
    bilinear = "bilinear"


class Norm(str, Enum):
    """How the counts in a frame are scaled; see `saformer.data.events.normalise`."""

    none = "none"
    max = "max"
    clip1 = "clip1"
    log1p = "log1p"


class BadRecordings(str, Enum):
    """Whether a recording that cannot be read stops the build, or is left out and listed."""

    error = "error"
    skip = "skip"


@dataclass(kw_only=True)
class EventConfig:
    """How recordings of events become frames; each setting except `norm` has its own cache."""

    split_by: SplitBy = SplitBy.number
    """Frames of equally many events (the peers' way) or of equal duration."""
    resize: Resize = Resize.bin
    """How to get from the sensor's size to `dataset.image_size`; `bin` keeps every event and whole
    counts."""
    norm: Norm = Norm.none
    """Counts as they are, divided by the clip's largest, limited to 1, or log(1 + n)."""
    bad_recordings: BadRecordings = BadRecordings.error
    """`skip` leaves out up to 0.1 % of the recordings and lists them."""


@dataclass(kw_only=True)
class DatasetConfig:
    """One dataset: where it is, what it looks like, how it is split and batched."""

    name: str
    """Name shown in results; it is also the name of the reader (`saformer.data.readers`)."""
    reader: str | None = None
    """Module that reads the dataset, if its name differs from `name` or it is your own
    (docs/extend.md)."""
    root: str | None = None
    """Folder that holds the files; null for data shipped with the package."""
    num_classes: int = field(metadata=at_least(1, most=10**6))
    """Number of classes K."""
    in_channels: int = field(metadata=at_least(1, most=1024))
    """Image channels C (2 for event polarities)."""
    image_size: int = field(metadata=at_least(1, most=8192))
    """Side of the square image in pixels, H = W."""
    crop_pct: float = field(default=1.0, metadata=within(0, 1, above=True))
    """Share of the side that the centre crop keeps when an image is decoded for evaluation
    (ImageNet)."""
    mean: list[float]
    """Mean of the training images in units of 0..1 (of event frames: in counts), for each channel,
    or one for all."""
    std: list[float] = field(metadata=positive())
    """Standard deviation for each channel, or one for all, in the same units."""
    flippable: bool = True
    """Whether a mirrored image keeps its class; if not, augment.hflip is refused."""
    split: Split = Split.official
    """How the test items are chosen; if there is an official split, it must be `official`."""
    batch_size: int = field(default=64, metadata=at_least(1, most=10**6))
    """Images per training step and device."""
    eval_batch_size: int = field(default=256, metadata=at_least(1, most=10**6))
    """Images per evaluation step and device. It changes only two results: the energy of a
    validation, which counts whole batches, and the random draws of model.encoding=rate."""
    val_fraction: float = field(default=0.1, metadata=within(0, 1, above=True, below=True))
    """Share of the training images held out for model selection, stratified by class."""
    split_seed: int = field(default=0, metadata=at_least(0, most=2**32 - 1))
    """Seed of that split, and of stratified_seeded. It is separate from the run's seed, so that
    runs with different seeds use the same split."""
    train_subset: int | None = field(default=None, metadata=at_least(1, most=10**9))
    """Use only this many training images (stratified); null uses all."""
    num_workers: int = field(default=0, metadata=at_least(0, most=1024))
    """Loader processes; 0 is fastest unless images are decoded (ImageNet)."""
    cache_dir: str | None = None
    """Folder of the cache that is built from the files once; null if the dataset has no cache."""
    device_resident: bool = False
    """Keep the whole set as uint8 on the device, so that a step loads nothing."""
    allow_incomplete: bool = False
    """Use a dataset of which some recordings or images are missing; results are not comparable."""
    events: EventConfig | None = None
    """How events become frames; null for images."""

    def __post_init__(self) -> None:
        require_ranges(self, "dataset")
        require_name("dataset.name", self.name)  # the name of the cache folder begins with it
        for name in ("mean", "std"):
            value = getattr(self, name)
            rule = f"have one value, or one per channel ({self.in_channels})"
            require(len(value) in (1, self.in_channels), f"dataset.{name}", rule, value)


class RandAugmentOps(str, Enum):
    """Which operations RandAugment draws from; see `saformer.data.randaugment`."""

    timm = "timm"
    spikformer = "spikformer"


@dataclass(kw_only=True)
class AugmentConfig:
    """Training augmentation: one draw per sample, computed for a whole batch on the device."""

    crop_padding: int = field(default=0, metadata=at_least(0, most=8192))
    """Random crop after padding this many pixels with zeros; 0 is off."""
    hflip: float = field(default=0.0, metadata=within(0, 1))
    """Probability of a horizontal flip; keep 0 where it changes the label (digits)."""
    degrees: float = field(default=0.0, metadata=within(0, 360))
    """Rotation, uniform in +-degrees."""
    translate: float = field(default=0.0, metadata=within(0, 1))
    """Shift per axis, uniform in +- this share of the side."""
    scale: list[float] = field(default_factory=lambda: [1.0, 1.0], metadata=within(0.01, 100))
    """Zoom, uniform between the two."""
    shear: float = field(default=0.0, metadata=within(0, 90, below=True))
    """Horizontal shear, uniform in +-degrees."""
    randaugment: str | None = None
    """RandAugment as timm writes it, for example rand-m9-n1-mstd0.5; null is off."""
    randaugment_group: int = field(default=16, metadata=at_least(1, most=10**6))
    """Samples that share one RandAugment draw; smaller is more diverse and slower."""
    randaugment_ops: RandAugmentOps = RandAugmentOps.timm
    """Operations that RandAugment draws from: timm's 15, or Spikformer's five for CIFAR."""
    resized_crop: list[float] | None = None
    """Random crop of low..high of the area when an image is decoded (ImageNet); null is off."""
    nda: bool = False
    """For event clips: apply identity, shear, one of two translations, rotation or cutout."""
    erase: float = field(default=0.0, metadata=within(0, 1))
    """Probability of erasing a random rectangle (area 0.02..1/3)."""
    mixup: float = field(default=0.0, metadata=at_least(0))
    """Beta parameter of MixUp; 0 is off."""
    cutmix: float = field(default=0.0, metadata=at_least(0))
    """Beta parameter of CutMix; 0 is off. With both on, one of them is drawn per batch."""
    mix_prob: float = field(default=1.0, metadata=within(0, 1))
    """Probability that a batch is mixed."""
    mixup_off_epoch: int | None = field(default=None, metadata=at_least(0, most=10**6))
    """Stop mixing at this epoch (the first is 0); null mixes to the end."""

    def __post_init__(self) -> None:
        require_ranges(self, "augment")
        if self.randaugment is not None:
            parse_policy(self.randaugment)
        ok = len(self.scale) == 2 and self.scale[0] <= self.scale[1]
        require(ok, "augment.scale", "be [low, high] with low <= high", self.scale)
        area = self.resized_crop
        if area is not None:
            ok = len(area) == 2 and 0 < area[0] <= area[1] <= 1
            rule = "be null or [low, high] with 0 < low <= high <= 1"
            require(ok, "augment.resized_crop", rule, area)
