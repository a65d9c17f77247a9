"""One run from start to end: seed, build, resume, fit, test, write results.

Only this module uses all the other packages: data, models, training, callbacks and loggers.
"""

import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from saformer.checkpoint import (
    load_checkpoint,
    load_weights,
    require_resumable,
    saved_config,
)
from saformer.config.check import to_dict
from saformer.config.files import options
from saformer.config.schema import Config
from saformer.data.module import SpikingDataModule
from saformer.energy.silence import silence
from saformer.errors import DataError, SettingError, UserError, require
from saformer.escape import override, shell
from saformer.files import new_folder, with_time, write_new_json
from saformer.runs.cluster import require_processes
from saformer.runs.logger import build_logger, finish
from saformer.runs.provenance import git_state, versions, write_run_json
from saformer.runs.quiet import quiet
from saformer.runs.resume import is_done, put_aside, require_average, start_point, stoppable
from saformer.runs.sweep import require_same_run
from saformer.terminal import console
from saformer.training.callbacks.checkpoint import WholeCheckpointIO, best_checkpoint, require_disk
from saformer.training.callbacks.draws import OwnDraws
from saformer.training.callbacks.energy import EnergyMonitor
from saformer.training.callbacks.norms import FreshStatistics
from saformer.training.callbacks.progress import progress_bar
from saformer.training.callbacks.results import ResultsWriter
from saformer.training.callbacks.resume import ExactResume
from saformer.training.callbacks.spikes import SpikeFigures, draw_first
from saformer.training.module import SAFormerModule
from saformer.training.targets import build

log = logging.getLogger(__name__)


def train(config: Config, run_dir: Path) -> float | tuple[float, ...]:
    """Train, then test the best checkpoint; all files of the run are written to its folder.

    Args:
        config: The run's settings.
        run_dir: Folder of the run.

    Returns:
        The metrics named in `config.objective`, of the best epoch; sweepers optimise them.

    Raises:
        UserError: Settings, data, checkpoint or disk do not allow the run.
    """
    quiet()
    if is_done(run_dir, config):
        require_same_run(run_dir, config)
        log.info("run %s is finished: its results are kept", os.path.relpath(run_dir))
        return objective(config.objective, run_dir)
    try:
        with stoppable():
            _train(config, run_dir)
    except KeyboardInterrupt:
        word = shell([f"hydra.run.dir={override(os.path.relpath(run_dir))}"])
        log.info("to resume, start again with %s", word)
        raise
    return objective(config.objective, run_dir)


def _train(config: Config, run_dir: Path) -> None:
    saved = to_dict(config)
    start = start_point(run_dir, config.ckpt_path, config.seed)
    if start is not None:
        require_resumable(start[0], saved_config(start[1]), saved)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    data = SpikingDataModule(config.dataset, config.augment, config.seed, config.timesteps)
    data.setup()  # before any result is written, so that the folder can be used again
    module = SAFormerModule(config, saved)
    require_disk(run_dir, module)
    run_dir.mkdir(parents=True, exist_ok=True)
    log.info("%s   run %s", describe(module), os.path.relpath(run_dir))
    if config.compile:
        module.backbone.compile()  # in place: the names in checkpoints stay as they are
    try:
        trainer = _trainer(config, run_dir)
        if start is not None:
            require_average(*start, trainer)
        # Create the logger only now: it starts a wandb run, which a refused run should not leave.
        trainer.logger = _logger(config, run_dir, saved)
        facts = {"data": data.describe(), "effective_batch": _effective_batch(config, trainer)}
        resume = start[0] if start else None
        put_aside(run_dir, resume)
        write_run_json(run_dir, sys.argv, config.seed, saved, extra=facts)
        del start  # frees memory: it is twice as large as the network
        trainer.fit(module, data, ckpt_path=resume, weights_only=True)
        best = best_checkpoint(trainer)
        chosen = best.best_model_path if best is not None else None
        if chosen:
            load_checkpoint(chosen)  # raises for a damaged file, whose test would mislead the user
        tested = trainer.test(
            module, data, ckpt_path=chosen or None, weights_only=True, verbose=False
        )
        trainer.strategy.barrier()  # wait until the first rank has written what all ranks read
    except MisconfigurationException as error:
        # The user sets arguments of Trainer and callbacks, and Lightning checks some of them late.
        raise UserError(f"Lightning: {' '.join(str(error).split())}") from error
    finally:
        finish()
    scores = _scores(tested)
    shown = os.path.relpath(chosen or run_dir)
    _tell(scores, silence(scores, module.same_logits, "test"), shown)


def evaluate(config: Config, checkpoint: dict[str, Any]) -> float:
    """Test a checkpoint and write `eval-<time>.json` beside its run.

    Args:
        config: Settings of the run that wrote it, with changes from the command line.
        checkpoint: Content of the checkpoint, from `load_checkpoint`.

    Returns:
        Test accuracy.

    Raises:
        UserError: The weights do not fit the settings, or the data cannot be read.
    """
    data = _data(config, checkpoint)
    scores, words = _test(config, checkpoint, data)
    if getattr(rank_zero_only, "rank", 0) == 0:
        record = {**scores, "silence": words, "data": data.describe(), "config": to_dict(config)}
        shown = "nowhere"
        try:
            shown = os.path.relpath(write_new_json(_beside_run(config, "eval"), record))
        finally:  # print the result even if it cannot be written
            _tell(scores, words, shown)
    return scores["test/top1"]


def report_energy(config: Config, checkpoint: dict[str, Any]) -> float:
    """Count a checkpoint on the whole test set; print, and write `energy-<time>/` beside its run.

    Args:
        config: See `evaluate`.
        checkpoint: See `evaluate`.

    Returns:
        Energy per image in mJ under the configured convention.

    Raises:
        UserError: See `evaluate`; or the network cannot be counted.
    """
    monitor = _energy_monitor(config, _beside_run(config, "energy"), new=True)
    scores, words = _test(config, checkpoint, _data(config, checkpoint), monitor)
    if monitor.table is not None and getattr(rank_zero_only, "rank", 0) == 0:
        from saformer.energy import report

        console().print(*report.terminal(monitor.table, config.energy), sep="\n", markup=False)
    _tell(scores, words, os.path.relpath(monitor.folder))
    return scores["energy/total_mJ"]


def draw_spikes(
    config: Config, checkpoint: dict[str, Any], images: int, out: Path | None
) -> list[Path]:
    """Draw firing rates, attention and spikes of a checkpoint, on the CPU and in float32.

    Args:
        config: See `evaluate`.
        checkpoint: See `evaluate`.
        images: Number of test images to draw, from the first.
        out: Folder of the figures; by default `plots-<time>/` beside the run.

    Returns:
        Paths of the figures.

    Raises:
        UserError: See `evaluate`; or the test set has fewer images.
    """
    data = _data(config, checkpoint)
    size = data.describe()["test"]["size"]
    rule = f"be 1 to {size}, the size of the test set of {config.dataset.name}"
    require(1 <= images <= size, "--images", rule, images)
    module = SAFormerModule(config, to_dict(config)).eval()
    load_weights(config.ckpt_path or "", checkpoint, module)
    folder = out or new_folder(_beside_run(config, "plots"))
    try:
        return draw_first(module, data, images, folder)
    finally:
        if out is None and not any(folder.iterdir()):
            folder.rmdir()


def _data(config: Config, checkpoint: dict[str, Any]) -> SpikingDataModule:
    """The data of an evaluation; refuse a test set that differs from that of the training."""
    root = saved_config(checkpoint)["dataset"].get("root")
    there = f"dataset.root={root}" if str(root).isprintable() else "another dataset.root"
    unknown = config.dataset.name not in options("dataset")
    if unknown and root is not None and config.dataset.root is None:
        raise SettingError(
            f"the folder of {config.dataset.name} is not known: type dataset=OPTION, or "
            f"dataset.root=FOLDER. It was trained with {there}"
        )
    data = SpikingDataModule(config.dataset, config.augment, config.seed, config.timesteps)
    try:
        data.setup()
    except DataError as error:
        if root in (None, config.dataset.root):
            raise
        fix = f"{error.fix} It was trained with {there}: type this if the files are there"
        raise DataError(error.path, error.expected, error.found, fix) from error
    before = checkpoint.get(SpikingDataModule.__qualname__)
    if before is not None and before["dataset"] == config.dataset.name:
        data.require_same(before, ["test"])
    return data


def _test(
    config: Config, checkpoint: dict[str, Any], data: SpikingDataModule, *callbacks: Callback
) -> tuple[dict[str, float], list[str]]:
    """Scores of a checkpoint on the test images, and warnings if the network hardly fires."""
    quiet()
    path = config.ckpt_path or ""
    pl.seed_everything(config.seed, workers=True, verbose=False)
    module = SAFormerModule(config, to_dict(config))
    load_weights(path, checkpoint, module)
    log.info("%s   %s", describe(module), path)
    trainer = _build_trainer(
        config,
        list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    scores = _scores(trainer.test(module, data, verbose=False))
    return scores, silence(scores, module.same_logits, "test")


def _scores(tested: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The scores that `Trainer.test` measured."""
    if not tested:
        raise UserError("no test batch ran, so there is no result: drop trainer.limit_test_batches")
    return {name: float(value) for name, value in tested[0].items()}


def _tell(scores: Mapping[str, float], words: list[str], place: str) -> None:
    """Log the last line of a command that tested a network."""
    but = "".join(f", but {warning}" for warning in words)
    log.info("test acc %.2f %%%s   %s", 100 * scores["test/top1"], but, place)


def _beside_run(config: Config, what: str) -> Path:
    """A path for a result on a checkpoint: in the folder of its run, or else in the current folder.

    Checkpoints of other users are often in a folder that we may only read.
    """
    path = Path(config.ckpt_path or "")
    folder = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    if not os.access(folder, os.W_OK):
        log.warning("%s cannot be written: the result goes into the current folder", folder)
        folder = Path()
    return with_time(folder / what)


def _energy_monitor(config: Config, folder: Path, new: bool = False) -> EnergyMonitor:
    facts = {
        "model": config.model.name,
        "dataset": config.dataset.name,
        "split": "test",
        "commit": git_state(Path(__file__).parent)["commit"],
        "versions": versions(),
        "config": to_dict(config),
    }
    return EnergyMonitor(config.energy, folder, facts, new, config.plots)


def objective(names: list[str], run_dir: Path) -> float | tuple[float, ...]:
    """Validation metrics of the tested epoch from results.json; NaN if it was not validated."""
    best = json.loads((run_dir / "results.json").read_text(encoding="utf-8"))["best"]
    if best is None:
        log.warning("the tested epoch was not validated, so there is no objective")
        best = dict.fromkeys(names, nan)
    for name in names:
        if name not in best:
            known = ", ".join(key for key in best if "/" in key)
            raise UserError(f"objective={name} was not measured in the best epoch. It has {known}")
    values = tuple(float(best[name]) for name in names)
    return values[0] if len(values) == 1 else values


def describe(module: SAFormerModule) -> str:
    """Describe the network in one line."""
    config = module.config
    params = sum(p.numel() for p in module.backbone.parameters())
    return (
        f"{config.model.name} on {config.dataset.name}, T={config.timesteps}: "
        f"{params / 1e6:.2f} M parameters, {config.dataset.num_classes} classes"
    )


def _logger(config: Config, run_dir: Path, saved: dict[str, Any]) -> Logger | None:
    """Build our logger of `logger.kind`, or any other Lightning logger from `logger._target_`."""
    if "_target_" in config.logger:
        return build("logger", config.logger, Logger)  # type: ignore[type-abstract]
    return build_logger(
        config.logger,
        run_dir,
        run_name=run_dir.name,
        group=config.name,
        tags=[config.dataset.name, f"T={config.timesteps}"],
        config_to_log=saved,
    )


def _trainer(config: Config, run_dir: Path) -> pl.Trainer:
    callbacks: list[Callback] = [FreshStatistics()]  # before callbacks that average or save them
    for name, node in config.callbacks.items():
        if isinstance(node, dict) and str(node.get("_target_")).endswith("Checkpoint"):
            node.setdefault("dirpath", str(run_dir / "checkpoints"))
        callbacks.append(build(f"callbacks.{name}", node, Callback))
    if config.energy.enabled:  # first, so that other callbacks can monitor its metrics
        callbacks.insert(0, _energy_monitor(config, run_dir / "energy"))
    callbacks += [ExactResume(config.seed), ResultsWriter(run_dir)]
    if config.plots:
        callbacks.append(SpikeFigures(run_dir / "plots"))  # last, after the results are written
    trainer = _build_trainer(
        config,
        callbacks,
        logger=False,
        default_root_dir=run_dir,
        # If no checkpoint callback is configured, Lightning must not add its own.
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        enable_model_summary=False,
    )
    trainer.strategy.checkpoint_io = WholeCheckpointIO()
    return trainer


def _build_trainer(config: Config, callbacks: list[Callback], **arguments: Any) -> pl.Trainer:
    gpu = config.trainer.get("accelerator") != "cpu" and torch.cuda.is_available()
    if config.trainer.get("sync_batchnorm") and not gpu:
        log.warning("sync_batchnorm needs GPUs: each process normalises with its own images")
        arguments["sync_batchnorm"] = False
    if not gpu and "bf16" in str(config.trainer.get("precision")) and not _computes_bf16():
        log.warning(
            "trainer.precision=%s: this CPU has no bf16 arithmetic (avx512_bf16, amx_bf16) and "
            "will be many times slower than with trainer.precision=32-true",
            config.trainer["precision"],
        )
    callbacks = [OwnDraws(config.seed), *callbacks, progress_bar()]
    trainer = build("trainer", config.trainer, pl.Trainer, callbacks=callbacks, **arguments)
    require_processes(trainer.num_devices, trainer.num_nodes)
    return trainer


def _computes_bf16() -> bool:
    """Whether the CPU has instructions for bf16; true if PyTorch is too old to tell."""
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    names = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
    return not able or any(able.get(name, False) for name in names)


def _effective_batch(config: Config, trainer: pl.Trainer) -> int:
    """Images of one optimizer step; warn if the learning rate was tuned for another number."""
    per_device, devices = config.dataset.batch_size, trainer.world_size
    accumulated = trainer.accumulate_grad_batches
    effective, intended = per_device * devices * accumulated, config.optimizer.lr_batch
    if intended not in (None, effective) and trainer.is_global_zero:
        log.warning(
            "optimizer.lr=%g belongs to an effective batch of %d (optimizer.lr_batch), and this "
            "run's is %d: dataset.batch_size=%d x %d devices x trainer.accumulate_grad_batches=%d. "
            "Change one of these, or choose optimizer.lr and set optimizer.lr_batch=%d",
            *(
                config.optimizer.lr,
                intended,
                effective,
                per_device,
                devices,
                accumulated,
                effective,
            ),
        )
    return effective
