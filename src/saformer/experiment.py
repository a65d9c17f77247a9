"""One run from start to end: seed, build, resume, fit, test, write results.

The only module that knows all the rooms: data, models, training, callbacks and loggers.
"""

import json
import logging
import os
import shutil
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from saformer.callbacks.progress import progress_bar
from saformer.callbacks.results import ResultsWriter
from saformer.checkpoint import load_checkpoint, load_weights, require_same_model, saved_config
from saformer.config import Config, build, to_dict
from saformer.data.module import SpikingDataModule
from saformer.errors import UserError, require
from saformer.logger import build_logger, finish
from saformer.module import SAFormerModule
from saformer.noise import quiet
from saformer.provenance import write_run_json

log = logging.getLogger(__name__)


def train(config: Config, run_dir: Path) -> float:
    """Train, then test the best checkpoint; everything about the run lands in its folder.

    Args:
        config: The run's settings.
        run_dir: Folder of the run.

    Returns:
        Best validation accuracy, the objective of sweeps.

    Raises:
        UserError: Something in the settings, the data, the checkpoint or on the disk stands in
            the way.
    """
    quiet()
    saved = to_dict(config)
    resume = _resume_from(config, run_dir)
    if resume is not None:
        require_same_model(resume, saved_config(load_checkpoint(resume)), saved)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    data = SpikingDataModule(config.dataset, config.augment, config.seed)
    data.setup()  # before anything is written, so that missing data leaves no empty run
    module = SAFormerModule(config, saved)
    _require_disk(run_dir, module)
    run_dir.mkdir(parents=True, exist_ok=True)
    write_run_json(run_dir, sys.argv, config.seed, saved, extra={"data": data.describe()})
    log.info("%s   run %s", describe(module), os.path.relpath(run_dir))
    if config.compile:
        module.backbone.compile()  # in place: the names in checkpoints stay as they are
    logger = _logger(config, run_dir, saved)
    try:
        trainer = _trainer(config, run_dir, logger)
        trainer.fit(module, data, ckpt_path=resume, weights_only=True)
        if trainer.interrupted:
            raise KeyboardInterrupt
        best = trainer.checkpoint_callback
        chosen = best.best_model_path if isinstance(best, ModelCheckpoint) else None
        scores = trainer.test(
            module, data, ckpt_path=chosen or None, weights_only=True, verbose=False
        )[0]
    except MisconfigurationException as error:
        # Arguments of Trainer and callbacks are the user's; Lightning looks at some of them late.
        raise UserError(f"Lightning: {' '.join(str(error).split())}") from error
    finally:
        finish()
    reached = best.best_model_score if isinstance(best, ModelCheckpoint) else None
    score = 0.0 if reached is None else float(reached)
    log.info(
        "test acc %.2f %%   val acc %.2f %%   %s",
        100 * scores["test/top1"],
        100 * score,
        os.path.relpath(chosen or run_dir),
    )
    return score


def evaluate(config: Config, checkpoint: dict[str, Any]) -> float:
    """Test a checkpoint and write `eval-<time>.json` beside its run.

    Args:
        config: Settings of the run that wrote it, as changed on the command line.
        checkpoint: What `load_checkpoint` read.

    Returns:
        Test accuracy.

    Raises:
        UserError: The weights do not fit the settings, or the data cannot be read.
    """
    quiet()
    path = Path(config.ckpt_path or "")
    pl.seed_everything(config.seed, workers=True, verbose=False)
    module = SAFormerModule(config, to_dict(config))
    load_weights(str(path), checkpoint, module)
    log.info("%s   %s", describe(module), path)
    data = SpikingDataModule(config.dataset, config.augment, config.seed)
    trainer = build(
        config.trainer,
        callbacks=[progress_bar()],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    scores = trainer.test(module, data, verbose=False)[0]
    folder = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    result = folder / f"eval-{datetime.now():%Y-%m-%d_%H-%M-%S}.json"
    result.write_text(json.dumps({**scores, "config": to_dict(config)}, indent=2) + "\n")
    log.info("test acc %.2f %%   %s", 100 * scores["test/top1"], result)
    return float(scores["test/top1"])


def describe(module: SAFormerModule) -> str:
    """The network in one line."""
    config = module.config
    params = sum(p.numel() for p in module.backbone.parameters())
    return (
        f"{config.model.name} on {config.dataset.name}, T={config.timesteps}: "
        f"{params / 1e6:.2f} M parameters, {config.dataset.num_classes} classes"
    )


def _resume_from(config: Config, run_dir: Path) -> str | None:
    """The checkpoint that training goes on from.

    A folder that holds a run already is never written over: the run goes on from its last
    checkpoint, as a job does that was stopped and is started again in the same folder.
    """
    last = run_dir / "checkpoints" / "last.ckpt"
    other = "choose another folder with hydra.run.dir=..."
    used = (run_dir / "metrics.jsonl").exists()
    if config.ckpt_path is not None:
        if used and run_dir.resolve() not in Path(config.ckpt_path).resolve().parents:
            raise UserError(
                f"{run_dir} holds another run than ckpt_path={config.ckpt_path}: {other}"
            )
        return config.ckpt_path
    if last.exists():
        log.info("going on from %s", last)
        return str(last)
    if used:
        raise UserError(f"{run_dir} holds a run without a checkpoint to go on from: {other}")
    return None


def _logger(config: Config, run_dir: Path, saved: dict[str, Any]) -> Logger | bool:
    """One of ours by `logger.kind`, or any other Lightning logger by `logger._target_`."""
    if "_target_" in config.logger:
        logger: Logger = build(config.logger)
        return logger
    return build_logger(
        config.logger,
        run_dir,
        run_name=run_dir.name,
        group=config.name,
        tags=[config.dataset.name, f"T={config.timesteps}"],
        config_to_log=saved,
    )


def _trainer(config: Config, run_dir: Path, logger: Logger | bool) -> pl.Trainer:
    callbacks: list[Callback] = []
    for name, node in config.callbacks.items():
        is_node = isinstance(node, dict) and "_target_" in node
        require(is_node, f"callbacks.{name}", "name a class with _target_", node)
        if node["_target_"].endswith("Checkpoint"):
            node.setdefault("dirpath", str(run_dir / "checkpoints"))
        callbacks.append(build(node))
    trainer: pl.Trainer = build(
        config.trainer,
        callbacks=[*callbacks, ResultsWriter(run_dir), progress_bar()],
        logger=logger,
        default_root_dir=run_dir,
        enable_model_summary=False,
    )
    return trainer


def _require_disk(run_dir: Path, module: SAFormerModule) -> None:
    """Refuse to start a training whose checkpoints cannot be kept."""
    folder = next(parent for parent in (run_dir, *run_dir.parents) if parent.exists())
    one = 3 * sum(p.numel() * p.element_size() for p in module.parameters())  # weights, two moments
    needed = 3 * one + 2**24  # best, last, and the next one while it is written; logs
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder} has {free / 2**20:.0f} MiB free, this run needs about "
            f"{needed / 2**20:.0f} MiB: free some, or choose another folder with hydra.run.dir=..."
        )
