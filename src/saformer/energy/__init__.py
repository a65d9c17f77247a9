"""Energy: count synaptic operations exactly, and estimate energy by conventions and hardware."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saformer.energy.axes import EnergyError
    from saformer.energy.conventions import apply, preset
    from saformer.energy.costs import cost_model
    from saformer.energy.counter import Counter, count, coverage
    from saformer.energy.table import LayerTable

__all__ = [
    "Counter",
    "EnergyError",
    "LayerTable",
    "apply",
    "cost_model",
    "count",
    "coverage",
    "preset",
]

HOMES = {
    "axes": ("EnergyError",),
    "conventions": ("apply", "preset"),
    "costs": ("cost_model",),
    "counter": ("Counter", "count", "coverage"),
    "table": ("LayerTable",),
}


def __getattr__(name: str) -> Any:
    """Import a name at first use, because the settings in this package must not import torch."""
    for home, names in HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")
