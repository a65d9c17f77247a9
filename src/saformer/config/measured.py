"""Metrics that a run measures, and the settings that watch one of them.

Whatever will not be measured is refused before the training, which would else be lost. Imports no
torch.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from saformer.config.schema import Config
from saformer.energy.settings import OF_COSTS, SCALARS, require_known
from saformer.errors import SettingError, require

COUNTED = ("energy/", "rate/", "neurons/")
"""Groups of metrics that are there where energy is counted."""

BETTER = {"loss": "min", "top1": "max", "top5": "max", "mJ": "min"}
"""What is better of metrics that end with these words; of others a user may want either."""


def logged(config: Config) -> tuple[str, ...]:
    """Metrics of every run: those of the training, and of its validation."""
    names = ("train/loss", "val/loss", "val/top1")
    return (*names, "val/top5") if config.dataset.num_classes > 5 else names


def require_measured(config: Config) -> None:
    """Refuse to train towards a metric that some epochs, or all, will not measure.

    Raises:
        SettingError: `objective` or a callback's `monitor` or `mode` cannot be followed.
    """
    for name in config.objective:
        _require_metric(config, "objective", name)
    for key, node in config.callbacks.items():
        if isinstance(node, dict) and node.get("monitor") is not None:
            setting, name = f"callbacks.{key}", str(node["monitor"])
            _require_metric(config, f"{setting}.monitor", name)
            if not _is_own(node):
                best, mode = BETTER.get(_last_word(name)), node.get("mode", "min")
                rule = f"be {best} for {setting}.monitor={name}"
                require(best in (None, mode), f"{setting}.mode", rule, mode)
            if str(node.get("_target_")).endswith("EarlyStopping"):
                _require_in_time(config, setting, node)


def require_directions(objective: Sequence[str], directions: Sequence[str]) -> None:
    """Refuse a search that would not take what a run returns, or would look for the worst.

    Args:
        objective: Metrics that a run returns.
        directions: minimize or maximize, for each.

    Raises:
        SettingError: There is another number of them, or one is the wrong way.
    """
    rule = f"be of {len(objective)}, as many as objective=[{','.join(objective)}] has"
    same = len(directions) == len(objective)
    require(same, "hydra.sweeper.direction", rule, f"[{','.join(directions)}]")
    for name, direction in zip(objective, directions, strict=True):
        best = BETTER.get(_last_word(name))
        rule = f"be {best}imize for objective={name}"
        require(
            best is None or direction.startswith(best), "hydra.sweeper.direction", rule, direction
        )


def _require_metric(config: Config, setting: str, name: str) -> None:
    """A metric is one that this run measures in every epoch that it validates."""
    energy = config.energy
    own = any(map(_is_own, _nodes(config)))  # a callback of the user's own may log any metric
    if not name.startswith(COUNTED):
        rule = f"be a metric: {', '.join(logged(config))}, {'*, '.join(COUNTED)}*"
        require(own or name in logged(config), setting, rule, name)
        return
    if not own:
        group = name.partition("/")[0]
        known = [one for one in (*SCALARS, *OF_COSTS) if one.startswith(f"{group}/")]
        require_known(setting, name, known)
    if not energy.enabled:
        raise SettingError(f"{setting}={name} needs counting: type energy=exact")
    if energy.every_n_epochs > 1:
        raise SettingError(
            f"{setting}={name} needs a count in every epoch: type energy.every_n_epochs=1"
        )
    model = OF_COSTS.get(name)
    if model is not None and model not in energy.costs:
        raise SettingError(f"{setting}={name} needs {model} among energy.costs")
    if name == "energy/total_mJ_se" and energy.samples == config.dataset.eval_batch_size == 1:
        raise SettingError(f"{setting}={name} needs two images: type energy.samples=2")


def _require_in_time(config: Config, setting: str, node: dict[str, Any]) -> None:
    """Early stopping looks at its metric when that is new, and not at an old value or at none."""
    trainer, name = config.trainer, node["monitor"]
    every = trainer.get("check_val_every_n_epoch", 1)
    at_epoch_end = node.get("check_on_train_epoch_end")
    if at_epoch_end is None:  # Lightning's default
        at_epoch_end = every == 1 and trainer.get("val_check_interval") in (None, 1.0)
    option = f"{setting}.check_on_train_epoch_end"
    if name.startswith("train/"):
        require(at_epoch_end, option, f"be true for {name}", "false")
        return
    rule = f"not be 0 with {setting}, which looks at {name}"
    limit = trainer.get("limit_val_batches", 1)
    require(limit != 0, "trainer.limit_val_batches", rule, limit)
    rule = f"be false for {name} with trainer.check_val_every_n_epoch={every}"
    require(not at_epoch_end or every == 1, option, rule, "true")


def _nodes(config: Config) -> Iterator[dict[str, Any]]:
    return (node for node in config.callbacks.values() if isinstance(node, dict))


def _is_own(node: dict[str, Any]) -> bool:
    """Whether a callback is of the user's own."""
    return not str(node.get("_target_")).startswith(("saformer.", "lightning."))


def _last_word(name: str) -> str:
    return name.replace("_", "/").rpartition("/")[2]
