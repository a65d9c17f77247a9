"""Decide what a start does with its run folder: start anew, resume, or leave a finished run alone.

A run that was stopped at any moment and is started again in its folder gives the same result as an
uninterrupted run. No result of an earlier start is lost: files that this start would overwrite are
renamed first.
"""

import json
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, WeightAveraging
from lightning.pytorch.utilities import rank_zero_only

from saformer.checkpoint import LAST, OWN, PREVIOUS, at_epoch_end, load_checkpoint
from saformer.config.schema import Config
from saformer.errors import CheckpointError, OtherRunError, UserError
from saformer.files import set_aside
from saformer.runs.cluster import NOTICES, hand_back, heeds_notices
from saformer.runs.folder import done_results, shown

log = logging.getLogger(__name__)


def is_done(run_dir: Path, config: Config) -> bool:
    """Whether a folder holds a finished run, and the settings ask for no further training."""
    before = _last_start(run_dir)
    if before is None or done_results(run_dir) is None:
        return False
    goes_on = config.ckpt_path not in (None, before["ckpt_path"])
    return not goes_on and config.epochs <= before["epochs"]


def start_point(
    run_dir: Path, ckpt_path: str | None, seed: int
) -> tuple[str, dict[str, Any]] | None:
    """Find the checkpoint to resume from, and load it; None starts from scratch.

    A checkpoint that the user names is used only by the first start with it. If the same command
    is started again, as for a requeued job, it resumes from the newer checkpoint in its own folder.

    Args:
        run_dir: Folder of the run.
        ckpt_path: Checkpoint that the user names, or None.
        seed: Seed of this start.

    Returns:
        Path and content of the checkpoint, or None.

    Raises:
        CheckpointError: The named checkpoint cannot be resumed from, or all checkpoints in the
            folder are damaged.
        OtherRunError: The folder holds a run with another seed.
        UserError: The named checkpoint belongs to another run than the folder.
    """
    used, before = (run_dir / "metrics.jsonl").exists(), _last_start(run_dir)
    if before is not None and before["seed"] != seed:
        raise OtherRunError(
            f"{shown(run_dir)} holds a run with seed={before['seed']}, and this one has "
            f"seed={seed}: choose another folder with hydra.run.dir=..."
        )
    again = ckpt_path is None or (before is not None and before["ckpt_path"] == ckpt_path)
    if again and (latest := _latest(run_dir / "checkpoints")):
        return latest
    if ckpt_path is None:
        if used:
            log.info("%s was stopped before its first checkpoint: starting again", run_dir)
        return None
    if used and not again and run_dir.resolve() not in Path(ckpt_path).resolve().parents:
        raise UserError(
            f"{run_dir} holds another run than ckpt_path={ckpt_path}: choose another folder with "
            "hydra.run.dir=..."
        )
    checkpoint = load_checkpoint(ckpt_path)
    if not at_epoch_end(checkpoint):
        raise CheckpointError(
            f"ckpt_path={ckpt_path} does not hold the whole state of a training at the end of an "
            "epoch: use last.ckpt of its run"
        )
    return ckpt_path, checkpoint


def require_average(path: str, checkpoint: dict[str, Any], trainer: pl.Trainer) -> None:
    """Refuse to resume training from averaged weights as if they were the trained ones.

    Args:
        path: Path of the checkpoint, for the message.
        checkpoint: Content of the checkpoint.
        trainer: The trainer that resumes.

    Raises:
        CheckpointError: The checkpoint comes from a training with weight averaging, but this
            training has none.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    averages = any(isinstance(callback, WeightAveraging) for callback in callbacks)
    if "averaging_state" in checkpoint and not averages:
        raise CheckpointError(
            f"ckpt_path={path} was trained with an average of the weights: type callbacks=ema, or "
            "start without ckpt_path"
        )


@rank_zero_only
def put_aside(run_dir: Path, resumed: str | None) -> None:
    """Rename files that this start would overwrite: results-1.json, metrics-1.jsonl, last-1.ckpt.

    Args:
        run_dir: Folder of the run.
        resumed: The checkpoint that training resumes from; it contains the metrics so far.
    """
    results, checkpoints = run_dir / "results.json", run_dir / "checkpoints"
    paths: list[Path] = []
    if resumed is None or results.exists():
        paths += [results, run_dir / "metrics.jsonl", run_dir / "energy" / "rates.jsonl"]
    if resumed is not None and Path(resumed).resolve().parent == checkpoints.resolve():
        # Checkpoints before it in this list are damaged, or newer than the one that the user named.
        paths += takewhile(
            lambda path: path.name != Path(resumed).name,
            (checkpoints / LAST, checkpoints / PREVIOUS),
        )
    for path in paths:
        set_aside(path)


@contextmanager
def stoppable() -> Iterator[None]:
    """Make a kill or a Slurm notice raise `KeyboardInterrupt`, as Ctrl-C does.

    The argument of the exception is the signal's number. A Slurm job is requeued before.
    """
    main_pid = os.getpid()
    heard: list[int] = []

    def hear(number: int, _: FrameType | None) -> None:
        heard.append(number)

    def stop(number: int, _: FrameType | None) -> None:
        if os.getpid() != main_pid:  # a data worker that was forked from this process
            os._exit(128 + number)
        for notice in NOTICES:
            signal.signal(notice, signal.SIG_IGN)  # ignore further signals
        hand_back(number)
        raise KeyboardInterrupt(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *NOTICES)}
    for number in NOTICES:
        if before[number] == signal.SIG_DFL:  # keep the handler of a launcher
            signal.signal(number, stop if heeds_notices() else hear)
    try:
        yield
    except BaseException as end:
        # Lightning turns any interruption into exit code 1, and data workers that also received the
        # signal raise their own error. So we search the chain of errors for the interruption.
        error: BaseException | None = end
        while error is not None:
            if isinstance(error, KeyboardInterrupt):
                raise error from None
            error = error.__context__
        if heard:  # the first rank has stopped, and this rank failed because of that
            raise KeyboardInterrupt(heard[0]) from None
        raise
    finally:
        for number, handler in before.items():  # also Ctrl-C, whose handler Lightning replaces
            signal.signal(number, handler)


def _latest(folder: Path) -> tuple[str, dict[str, Any]] | None:
    """The latest checkpoint of a run from which training can resume."""
    damaged: list[str] = []
    for path in filter(Path.exists, map(folder.joinpath, OWN)):
        shown = os.path.relpath(path)
        try:
            checkpoint = load_checkpoint(path)
        except CheckpointError:
            damaged.append(shown)
            continue
        if at_epoch_end(checkpoint):
            instead = f"{' and '.join(damaged)} cannot be used: " if damaged else ""
            log.info("%sresuming from %s after epoch %d", instead, shown, checkpoint["epoch"] + 1)
            return str(path), checkpoint
    if damaged:
        raise CheckpointError(
            f"{' and '.join(damaged)} cannot be used, and there is no other checkpoint to resume "
            "from: choose another folder with hydra.run.dir=..."
        )
    return None


def _last_start(run_dir: Path) -> dict[str, Any] | None:
    """The settings of the last start in a folder."""
    path = run_dir / "run.json"
    if not path.exists():
        return None
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["starts"][-1]["config"]
    return config
