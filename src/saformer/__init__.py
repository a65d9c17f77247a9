"""SAFormer: train, evaluate and compare spiking vision transformers.

As a library, it needs neither Hydra nor Lightning:

    >>> import saformer
    >>> model = saformer.create_model("saformer_4_384", num_classes=100, timesteps=4)
    >>> logits = model(images)  # [T, B, K]
    >>> classifier = saformer.load("outputs/NAME/RUN/checkpoints/best.ckpt")
    >>> table = saformer.energy.count(model, images)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saformer import energy
    from saformer.classifier import Classifier, load
    from saformer.create import create_model, list_models

__version__ = "0.1.0.dev0"
__all__ = ["Classifier", "create_model", "energy", "list_models", "load"]

HOMES = {
    "Classifier": "classifier",
    "create_model": "create",
    "list_models": "create",
    "load": "classifier",
}


def __getattr__(name: str) -> Any:
    """Import a name at first use, so that `import saformer` is fast."""
    if name == "energy":
        return import_module("saformer.energy")
    if name in HOMES:
        return getattr(import_module(f"saformer.{HOMES[name]}"), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
