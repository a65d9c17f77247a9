"""Settings of energy counting: plain dataclasses that import no torch."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from saformer.errors import SettingError, require
from saformer.ranges import at_least, require_ranges
from saformer.suggest import suggest

CONVENTIONS = (
    *("exact", "spikformer_paper", "spikingformer_script", "sdt", "neurobench", "strict"),
)
"""Names of the conventions in `saformer.energy.conventions`."""

COSTS = (
    *("horowitz45", "horowitz45_fp16", "horowitz45_int8", "horowitz45_ann_int8"),
    *("lemaire2022", "yan2024_twin", "memory_simple"),
)
"""Names of the hardware models in `saformer.energy.costs`; the user's own have a dotted name."""

SCALARS = (
    *("energy/total_mJ", "energy/total_mJ_se", "energy/mac_mJ", "energy/ac_mJ", "energy/sop_G"),
    *("energy/strict_mJ", "energy/paper_mJ", "energy/lif_mJ"),
    *("energy/ann_fp32_mJ", "energy/ann_int8_mJ", "energy/ratio_ann"),
    *("energy/n_samples", "energy/coverage", "rate/mean", "rate/weighted"),
    *("neurons/dead_frac", "neurons/saturated_frac"),
)
"""Metrics of every count; a count of a single image has no standard error."""

OF_COSTS = {"energy/twin_ratio": "yan2024_twin", "energy/lemaire_uJ": "lemaire2022"}
"""Metrics of a hardware model; they exist if `energy.costs` names this model."""


def require_known(setting: str, name: str, known: Iterable[str]) -> None:
    """Raise a `SettingError` with the nearest name unless `name` is one of the `known`."""
    names = list(known)
    if name not in names:
        hint = suggest(name, names)
        rule = f"{setting} must be one of {', '.join(names)}, not {name}"
        raise SettingError(f"{rule}.{hint}" if hint else rule)


@dataclass(kw_only=True)
class EnergyConfig:
    """What is counted, how often, and which estimates are made of the counts."""

    enabled: bool = True
    """Count operations on validation and test batches."""
    convention: str = "exact"
    """Rules of counting; the bounds `strict` and `spikformer_paper` are always reported too."""
    costs: list[str] = field(default_factory=lambda: list(COSTS))
    """Hardware models to report, each with its own twin network; give a model of your own by its
    dotted name (docs/extend.md)."""
    samples: int = field(default=256, metadata=at_least(1, most=10**9))
    """Images to count in a validation epoch, in whole batches; a test always counts all images."""
    every_n_epochs: int = field(default=1, metadata=at_least(1, most=10**6))
    """Count in every n-th validation epoch."""

    def __post_init__(self) -> None:
        require_ranges(self, "energy")
        require_known("energy.convention", self.convention, CONVENTIONS)
        rule = "name at least one hardware model"
        require(len(self.costs) > 0, "energy.costs", rule, self.costs)
        for name in self.costs:
            if "." not in name:  # a dotted name is checked later, when the model is built
                require_known("energy.costs", name, COSTS)
