"""The schema of the configuration: one dataclass for each node, a docstring for every field.

The dataclasses of data, models and energy are in those packages.
"""

from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from enum import Enum
from typing import Any, get_type_hints

from saformer.data.settings import AugmentConfig, DatasetConfig
from saformer.energy.settings import EnergyConfig
from saformer.errors import require
from saformer.models.attention.settings import AttentionConfig
from saformer.models.settings import Encoding, MemoryConfig, ModelConfig, NeuronConfig
from saformer.ranges import at_least, positive, require_ranges, within

PROCESSES = {"devices": 1024, "num_nodes": 10_000}  # larger numbers are typing errors


class ScheduleName(str, Enum):
    """Shape of the learning-rate schedule after the warm-up."""

    cosine = "cosine"
    constant = "constant"


class Interval(str, Enum):
    """How often the learning rate changes."""

    epoch = "epoch"
    step = "step"


@dataclass(kw_only=True)
class OptimizerConfig:
    """AdamW; parameters with fewer than two dimensions are never decayed."""

    lr: float = field(metadata=positive())
    """Peak learning rate; it is not scaled with the batch size."""
    lr_batch: int | None = field(default=None, metadata=at_least(1, most=10**9))
    """Effective batch (per device x devices x accumulation) that a recipe's lr belongs to."""
    weight_decay: float = field(metadata=at_least(0))
    """Decoupled weight decay."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    """Running-average coefficients."""
    eps: float = field(default=1e-8, metadata=positive(most=1))
    """Term added to the denominator."""

    def __post_init__(self) -> None:
        require_ranges(self, "optimizer")
        ok = len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)
        require(ok, "optimizer.betas", "be two values in [0, 1)", self.betas)


@dataclass(kw_only=True)
class SchedulerConfig:
    """Learning-rate schedule: linear warm-up, then cosine or constant."""

    name: ScheduleName
    """cosine or constant."""
    warmup_epochs: int = field(default=0, metadata=at_least(0, most=10**6))
    """Epochs of linear warm-up from `warmup_lr`."""
    warmup_lr: float = field(default=1e-5, metadata=at_least(0))
    """Learning rate at the very start."""
    min_lr: float = field(default=1e-5, metadata=at_least(0))
    """Learning rate at the end of the cosine."""
    cooldown_epochs: int = field(default=0, metadata=at_least(0, most=10**6))
    """Number of last epochs at `min_lr`; the cosine spans the epochs before."""
    interval: Interval = Interval.step
    """Change the learning rate every step, or every epoch as timm does."""

    def __post_init__(self) -> None:
        require_ranges(self, "scheduler")
        ok = self.name is ScheduleName.cosine or self.cooldown_epochs == 0
        rule = "be 0 with scheduler.name=constant, which does not read it"
        require(ok, "scheduler.cooldown_epochs", rule, self.cooldown_epochs)


@dataclass(kw_only=True)
class LossConfig:
    """Cross-entropy of the mean logits, or of every timestep (TET)."""

    label_smoothing: float = field(default=0.0, metadata=within(0, 1, below=True))
    """Share of the target spread over all classes."""
    tet: bool = False
    """Temporal efficient training (arXiv 2202.11946): average the loss over T, not the logits."""
    tet_lambda: float = field(default=1e-3, metadata=within(0, 1, below=True))
    """Weight of the TET regulariser, the squared distance of the logits from `tet_mean`."""
    tet_mean: float = 1.0
    """Value to which the TET regulariser pulls the logits."""

    def __post_init__(self) -> None:
        require_ranges(self, "loss")


@dataclass(kw_only=True)
class Config:
    """All settings of one run."""

    name: str
    """Name of the run: its folder is outputs/<name>/<run id>."""
    seed: int = field(metadata=within(0, 2**32 - 1))
    """Seed of weights, shuffling and augmentation."""
    timesteps: int = field(metadata=at_least(1, most=10_000))
    """Timesteps T."""
    epochs: int = field(metadata=at_least(1, most=10**6))
    """Training epochs."""
    compile: bool
    """Compile the backbone in place with torch.compile, in training."""
    ckpt_path: str | None
    """Checkpoint to resume from (train) or to evaluate (eval): a file, a run folder, or latest."""
    data_dir: str
    """Folder that holds the datasets."""
    plots: bool = True
    """Draw figures of spikes and energy after the test of a run, and with saformer-energy."""
    dataset: DatasetConfig
    """Dataset."""
    model: ModelConfig
    """Sizes of the network."""
    attention: AttentionConfig
    """What mixes tokens: SASA, a rival's attention, or a control."""
    neuron: NeuronConfig
    """Settings of the neurons."""
    augment: AugmentConfig
    """Training augmentation."""
    optimizer: OptimizerConfig
    """Optimizer."""
    scheduler: SchedulerConfig
    """Learning-rate schedule."""
    loss: LossConfig
    """Loss."""
    energy: EnergyConfig
    """Which energy and firing rates are counted."""
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    """What training keeps for the backward pass."""
    objective: list[str]
    """Metrics of the best epoch that a run returns to a sweeper."""
    trainer: dict[str, Any]
    """Arguments of lightning.pytorch.Trainer."""
    callbacks: dict[str, Any]
    """Lightning callbacks, by name."""
    logger: dict[str, Any]
    """Loggers that get the metrics, besides the local files."""

    def __post_init__(self) -> None:
        require_ranges(self)
        require(self.name != "", "name", "not be empty: runs go into outputs/<name>", "''")
        rule = "be null or name a checkpoint: type ckpt_path=outputs/NAME/RUN"
        require(self.ckpt_path != "", "ckpt_path", rule, "''")
        rule = "name at least one metric"
        require(len(self.objective) > 0, "objective", rule, self.objective)
        used = self.scheduler.warmup_epochs + self.scheduler.cooldown_epochs
        rule = f"leave room for scheduler.warmup_epochs + scheduler.cooldown_epochs = {used}"
        require(self.epochs > used or used == 0, "epochs", rule, self.epochs)
        self._check_trainer()
        flip, data = self.augment.hflip, self.dataset
        rule = f"be 0 for {data.name}, where a mirrored image is of another class"
        rule += " (dataset.flippable=true allows it)"
        require(data.flippable or flip == 0, "augment.hflip", rule, flip)
        events, randaugment = data.events is not None, self.augment.randaugment
        rule = f"be false for {data.name}, which is images"
        require(events or not self.augment.nda, "augment.nda", rule, "true")
        ok = randaugment is None or (not events and data.in_channels in (1, 3))
        what = "events" if events else f"images of {data.in_channels} channels"
        rule = f"be null for {data.name}, which is {what}"
        require(ok, "augment.randaugment", rule, randaugment)
        if self.model.encoding is Encoding.rate:
            require(data.events is None, "model.encoding", "be direct for events", "rate")
            rule = "be [0] with model.encoding=rate, as ablation=rate_coding has it"
            require(not any(data.mean), "dataset.mean", rule, data.mean)
            rule = rule.replace("[0]", "[1]")
            require(set(data.std) == {1.0}, "dataset.std", rule, data.std)
        for name, default in vars(MemoryConfig()).items():
            value = getattr(self.memory, name)
            rule = (
                f"stay {default.value} with compile=true, where the compiler chooses what to keep"
            )
            require(value is default or not self.compile, f"memory.{name}", rule, value)

    def _check_trainer(self) -> None:
        """Refuse arguments of Trainer that contradict the other settings of a run."""
        limit = self.trainer.get("max_epochs", self.epochs)
        rule = f"be epochs, which the learning rate follows: type epochs={limit}"
        require(limit == self.epochs, "trainer.max_epochs", rule, limit)
        rule = "be left out, since a run ends with a whole epoch: {}"
        for name, off, instead in (
            (
                "max_steps",
                (None, -1),
                "type epochs=N, or +trainer.limit_train_batches=N for short epochs",
            ),
            ("max_time", (None,), "type epochs=N; a stopped run resumes when it is started again"),
        ):
            value = self.trainer.get(name)
            require(value in off, f"trainer.{name}", rule.format(instead), value)
        every = self.trainer.get("check_val_every_n_epoch", 1)
        rule = "be a number of epochs, by which results are reported"
        require(every is not None, "trainer.check_val_every_n_epoch", rule, "null")
        every = self.trainer.get("val_check_interval", 1.0)
        rule = "be a share of an epoch or a number of batches, by which results are reported"
        ok = every is None or type(every) in (int, float)
        require(ok, "trainer.val_check_interval", rule, every)
        accumulated = self.trainer.get("accumulate_grad_batches", 1)
        ok = type(accumulated) is int and accumulated >= 1
        rule = "be a whole number of at least 1"
        require(ok, "trainer.accumulate_grad_batches", rule, accumulated)
        for name, most in PROCESSES.items():
            value = self.trainer.get(name)
            many = str(len(value) if isinstance(value, list) else value)
            ok = not many.isdecimal() or int(many) <= most
            require(ok, f"trainer.{name}", f"be at most {most}", value)


def defaults(schema: type = Config) -> dict[str, Any]:
    """The defaults of all settings, as nested plain values.

    A file of conf/ or an override can change them. Settings without a default are left out, because
    conf/train.yaml and the options set them.
    """
    plain: dict[str, Any] = {}
    kinds = get_type_hints(schema)
    for setting in fields(schema):
        kind = kinds[setting.name]
        if isinstance(kind, type) and is_dataclass(kind):
            plain[setting.name] = defaults(kind)
        elif setting.default is not MISSING:
            value = setting.default
            plain[setting.name] = value.value if isinstance(value, Enum) else value
        elif setting.default_factory is not MISSING:
            plain[setting.name] = setting.default_factory()
    return plain
