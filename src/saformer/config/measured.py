"""Check that a run measures the metrics which its settings watch.

A metric that a run will not measure is refused before the training, because the training would be
lost otherwise. This module imports no torch.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from saformer.config.schema import Config
from saformer.energy.settings import OF_COSTS, SCALARS, require_known
from saformer.errors import SettingError, require

COUNTED = ("energy/", "rate/", "neurons/")
"""Groups of metrics that exist only if energy is counted."""

BETTER = {"loss": "min", "top1": "max", "top5": "max", "mJ": "min"}
"""Whether low or high is better for metrics with these last words; for others it is open."""


def logged(config: Config) -> tuple[str, ...]:
    """Metrics that every run logs in training and validation."""
    names = ("train/loss", "val/loss", "val/top1")
    return (*names, "val/top5") if config.dataset.num_classes > 5 else names


def require_measured(config: Config) -> None:
    """Refuse settings that watch a metric which some or all epochs will not measure.

    Raises:
        SettingError: `objective`, or the `monitor` or `mode` of a callback, cannot work.
    """
    for name in config.objective:
        _require_metric(config, "objective", name)
    for key, callback in config.callbacks.items():
        if isinstance(callback, dict) and callback.get("monitor") is not None:
            setting, name = f"callbacks.{key}", str(callback["monitor"])
            _require_metric(config, f"{setting}.monitor", name)
            if not _is_own(callback):
                best, mode = BETTER.get(_last_word(name)), callback.get("mode", "min")
                rule = f"be {best} for {setting}.monitor={name}"
                require(best in (None, mode), f"{setting}.mode", rule, mode)
            if str(callback.get("_target_")).endswith("EarlyStopping"):
                _require_in_time(config, setting, callback)


def require_directions(objective: Sequence[str], directions: Sequence[str]) -> None:
    """Refuse a search that does not fit the metrics of a run, or that searches for the worst.

    Args:
        objective: Metrics that a run returns.
        directions: minimize or maximize, for each.

    Raises:
        SettingError: The number of directions is wrong, or one of them is.
    """
    rule = f"have {len(objective)} values, as many as objective=[{','.join(objective)}]"
    same = len(directions) == len(objective)
    require(same, "hydra.sweeper.direction", rule, f"[{','.join(directions)}]")
    for name, direction in zip(objective, directions, strict=True):
        best = BETTER.get(_last_word(name))
        rule = f"be {best}imize for objective={name}"
        require(
            best is None or direction.startswith(best), "hydra.sweeper.direction", rule, direction
        )


def _require_metric(config: Config, setting: str, name: str) -> None:
    """Refuse a metric that this run does not measure in every epoch that it validates."""
    energy = config.energy
    any_metric = any(map(_is_own, _nodes(config)))  # the user's own callback may log any metric
    if not name.startswith(COUNTED):
        rule = f"be a metric: {', '.join(logged(config))}, {'*, '.join(COUNTED)}*"
        require(any_metric or name in logged(config), setting, rule, name)
        return
    if not any_metric:
        group = name.partition("/")[0]
        metrics = [metric for metric in (*SCALARS, *OF_COSTS) if metric.startswith(f"{group}/")]
        require_known(setting, name, metrics)
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


def _require_in_time(config: Config, setting: str, callback: dict[str, Any]) -> None:
    """Refuse early stopping that would look at an old value of its metric, or at none."""
    trainer, name = config.trainer, callback["monitor"]
    every = trainer.get("check_val_every_n_epoch", 1)
    at_epoch_end = callback.get("check_on_train_epoch_end")
    if at_epoch_end is None:  # Lightning's default
        at_epoch_end = every == 1 and trainer.get("val_check_interval") in (None, 1.0)
    option = f"{setting}.check_on_train_epoch_end"
    if name.startswith("train/"):
        require(at_epoch_end, option, f"be true for {name}", "false")
        return
    rule = f"not be 0 with {setting}, which monitors {name}"
    limit = trainer.get("limit_val_batches", 1)
    require(limit != 0, "trainer.limit_val_batches", rule, limit)
    rule = f"be false for {name} with trainer.check_val_every_n_epoch={every}"
    require(not at_epoch_end or every == 1, option, rule, "true")


def _nodes(config: Config) -> Iterator[dict[str, Any]]:
    return (value for value in config.callbacks.values() if isinstance(value, dict))


def _is_own(callback: dict[str, Any]) -> bool:
    """Whether a callback is a class of the user's own."""
    return not str(callback.get("_target_")).startswith(("saformer.", "lightning."))


def _last_word(name: str) -> str:
    return name.replace("_", "/").rpartition("/")[2]
