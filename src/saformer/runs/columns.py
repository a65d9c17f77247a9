"""The columns that a table can show; to add a column, add a line to `COLUMNS`."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from saformer.errors import SettingError
from saformer.suggest import suggest

ENERGY_UNITS = {"mJ": 1.0, "µJ": 1e3, "nJ": 1e6}
COUNT_UNITS = {"G": 1.0, "M": 1e3, "k": 1e6}


@dataclass(frozen=True)
class Column:
    """One column.

    Args:
        header: Header; `{unit}` stands for the unit that fits the values.
        path: Keys of the value in results.json.
        scale: Factor from results.json to the column's first unit.
        decimals: Digits after the decimal point; None for three significant digits.
        units: Units with their factors, the largest first.
        convention: Whether the value depends on the energy convention; the table then shows the
            convention beside it.
        spread: Whether the value may differ between seeds.
        published: Field of a published figure, if the column shows this instead of a value of runs.
    """

    header: str
    path: tuple[str, ...] = ()
    scale: float = 1.0
    decimals: int | None = None
    units: dict[str, float] | None = None
    convention: bool = False
    spread: bool = True
    published: str | None = None

    def read(self, results: dict[str, Any]) -> float | None:
        """The value in a run's results.json; None if it is missing or not a finite number."""
        value: Any = results
        for key in self.path:
            value = value.get(key) if isinstance(value, dict) else None
        if not isinstance(value, int | float) or not math.isfinite(value):
            return None
        return value * self.scale

    def unit(self, values: Iterable[float | None]) -> tuple[str, float]:
        """The largest unit in which the largest value is at least 1, and its factor."""
        if self.units is None:
            return "", 1.0
        largest = max((value or 0.0 for value in values), default=0.0)
        if not largest:
            return next(iter(self.units.items()))
        fitting = [(unit, factor) for unit, factor in self.units.items() if largest * factor >= 1]
        return (fitting or list(self.units.items())[-1:])[0]

    def digits(self, value: float) -> int:
        """Number of digits to show after the decimal point."""
        if self.decimals is not None or value == 0:
            return self.decimals or 0
        return max(0, 2 - math.floor(math.log10(abs(value))))


def _energy(header: str, metric: str, convention: bool = False) -> Column:
    path = ("energy", f"energy/{metric}_mJ")
    return Column(f"{header} ({{unit}})", path, units=ENERGY_UNITS, convention=convention)


COLUMNS = {
    "test_top1": Column("test acc (%)", ("test", "test/top1"), 100, 2),
    "test_top5": Column("test top-5 (%)", ("test", "test/top5"), 100, 2),
    "val_best": Column("val acc, best epoch (%)", ("best", "val/top1"), 100, 2),
    "val_last": Column("val acc, last epoch (%)", ("last", "val/top1"), 100, 2),
    "best_epoch": Column("best epoch", ("best", "epoch"), 1, 0),
    "last_epoch": Column("last epoch", ("last", "epoch"), 1, 0),
    "params": Column("params (M)", ("params",), 1e-6, 2, spread=False),
    "sops": Column("SOPs ({unit})", ("energy", "energy/sop_G"), units=COUNT_UNITS, convention=True),
    "energy": _energy("energy", "total", convention=True),
    "energy_paper": _energy("energy, spikformer_paper", "paper"),
    "energy_strict": _energy("energy, strict", "strict"),
    "energy_lif": _energy("LIF updates, beside it", "lif"),
    "energy_ann": _energy("FP32 ANN of the same shape", "ann_fp32"),
    "rate": Column("firing rate", ("energy", "rate/mean"), 1, 3),
    "published": Column("published acc (%)", published="top1", decimals=2),
    "published_params": Column("published params (M)", published="params_M", decimals=2),
    "published_ops": Column("published ops (G)", published="ops_G"),
    "published_energy": Column("published energy (mJ)", published="energy_mJ"),
}


def column(name: str) -> Column:
    """The column of this name.

    Raises:
        SettingError: There is no column of this name.
    """
    if name not in COLUMNS:
        near, known = suggest(name, COLUMNS), ", ".join(COLUMNS)
        raise SettingError(f"there is no column '{name}'.{near} Columns: {known}")
    return COLUMNS[name]
