"""Hardware models: energy in picojoules of counted operations, and of a twin without spikes.

Every number is an estimate from published constants, not a measurement. All constants of a model
belong to one technology node, and no number mixes two models.
"""

from functools import cache
from inspect import isabstract
from typing import Any

from saformer.energy.costs.base import Cost, CostModel, Item, millijoules
from saformer.energy.costs.horowitz import FP16, FP32, INT8, INT32, Arithmetic, Horowitz45
from saformer.energy.costs.lemaire import Lemaire2022
from saformer.energy.costs.memory import MemorySimple
from saformer.energy.costs.yan import Yan2024Twin
from saformer.energy.settings import require_known
from saformer.errors import require
from saformer.plugins import locate, require_options

__all__ = [
    "FP16",
    "FP32",
    "INT8",
    "INT32",
    "MODELS",
    "Arithmetic",
    "Cost",
    "CostModel",
    "Horowitz45",
    "Item",
    "Lemaire2022",
    "MemorySimple",
    "Yan2024Twin",
    "cost_model",
    "millijoules",
]

MODELS: dict[str, CostModel] = {
    model.name: model
    for model in (
        Horowitz45(name="horowitz45"),
        Horowitz45(name="horowitz45_fp16", snn=FP16, ann=FP16),
        Horowitz45(name="horowitz45_int8", snn=INT8, ann=INT8),
        Horowitz45(name="horowitz45_ann_int8", ann=INT8),
        Lemaire2022(),
        Yan2024Twin(),
        MemorySimple(),
    )
}


@cache
def cost_model(name: str) -> CostModel:
    """The hardware model of this name; a dotted name stands for a model of your own.

    Raises:
        SettingError: There is no such model, or it cannot be used.
    """
    if "." not in name:
        require_known("energy.costs", name, MODELS)
        return MODELS[name]
    expected = "a subclass of CostModel, or an instance of one"
    located = locate("energy.costs", name, _fits, expected)
    if isinstance(located, type):
        require_options("energy.costs", located, "__init__", (), {})
        located = located()
    model: CostModel = located
    require(model.name not in MODELS, "energy.costs", f"give {name} a name of its own", model.name)
    return model


def _fits(candidate: Any) -> bool:
    if isinstance(candidate, type):
        return issubclass(candidate, CostModel) and not isabstract(candidate)
    return isinstance(candidate, CostModel)
