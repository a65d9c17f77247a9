"""The logger of a run: Weights & Biases, a CSV file, or none.

Weights & Biases must never stop a run or ask a question. Without a login or a network, the run is
logged offline, and one line tells the user how to upload it.
"""

import functools
import hashlib
import inspect
import io
import logging
import os
import sys
import threading
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from saformer.errors import SettingError, require
from saformer.escape import shell
from saformer.names import require_name

log = logging.getLogger(__name__)

KINDS = ("wandb", "csv", "none")
NAMES = ("project", "group", "name", "id")
WANDB_MODES = ("online", "offline", "disabled")
FINISH_SECONDS = 60
"""How long the end of a run waits for a dead server; by default wandb waits forever."""
TEARDOWN_SECONDS = 20
"""How long the start of a run waits for the end of a wandb process that could not log in."""


def build_logger(
    config: dict[str, Any],
    run_dir: Path,
    run_name: str,
    group: str,
    tags: list[str],
    config_to_log: dict[str, Any],
) -> Logger | None:
    """Build the logger of a run; call `finish` when the run is over.

    Args:
        config: `kind` (wandb, csv or none) and, for wandb, arguments of `wandb.init` and
            `log_model`.
        run_dir: Folder of the run; it must exist.
        run_name: Name of the run in the table of runs.
        group: Name of the group of runs.
        tags: Tags with which users filter runs.
        config_to_log: All settings as plain values.

    Returns:
        The value for `Trainer.logger`; None is no logger.

    Raises:
        SettingError: The settings of the logger, or WANDB_MODE, are invalid.
    """
    options = dict(config)
    kind = options.pop("kind", None)
    require(kind in KINDS, "logger.kind", f"be one of {', '.join(KINDS)}", kind)
    for name, value in options.items():
        require(kind == "wandb", f"logger.{name}", f"be left out with logger.kind={kind}", value)
    if kind == "none":
        return None
    if kind == "csv":
        # Use a numbered folder for each start: in a fixed one, a resumed run would delete its past.
        csv = CSVLogger(run_dir, name="csv")
        csv.log_hyperparams(config_to_log)
        return csv
    log_model = options.pop("log_model", False)
    options = {"name": run_name, "group": group, "tags": tags, "config": config_to_log} | options
    for name in NAMES:
        if isinstance(options.get(name), str):
            require_name(f"logger.{name}", options[name])
    if getattr(rank_zero_only, "rank", 0) != 0:
        return WandbLogger(save_dir=run_dir)  # it never logs: only the first rank does
    return _PatientLogger(
        experiment=_start_wandb(run_dir, options), save_dir=run_dir, log_model=log_model
    )


def finish() -> None:
    """End the wandb run, if there is one, so that the next job of this process gets a new run.

    Call it in a `finally` block: if an exception is being raised, it marks the run as failed.
    """
    wandb = sys.modules.get("wandb")
    if wandb is None or wandb.run is None:
        return
    code = int(sys.exc_info()[0] is not None)
    try:
        wandb.finish(exit_code=code)
    except Exception as error:  # any error: the run is over, and its results are written
        log.warning("wandb could not end its run (%s)", error or type(error).__name__)


def _or_give_up(method: Callable[..., None]) -> Callable[..., None]:
    """Wrap a method of the logger, so that no method is called after the first failure."""

    @functools.wraps(method)
    def call(self: "_PatientLogger", *args: Any, **kwargs: Any) -> None:
        if self.gone:
            return
        try:
            method(self, *args, **kwargs)
        except Exception as error:  # its process, its connection, its disk, ...
            self.gone = True
            log.warning("wandb has failed, and the run continues without it: %r", error)

    return call


class _PatientLogger(WandbLogger):
    """Lightning's WandbLogger, except that a failure of wandb does not stop the training."""

    gone = False
    """Whether wandb has failed."""
    log_metrics = _or_give_up(WandbLogger.log_metrics)
    log_table = _or_give_up(WandbLogger.log_table)
    log_image = _or_give_up(WandbLogger.log_image)
    after_save_checkpoint = _or_give_up(WandbLogger.after_save_checkpoint)
    finalize = _or_give_up(WandbLogger.finalize)


def _let_go() -> None:
    """End the wandb process that could not log in, because it still holds the run's id.

    The process may ignore the request; then it ends with this process. wandb would wait for it
    forever, so we wait only `TEARDOWN_SECONDS`; wandb then starts a new process.
    """
    import wandb

    def end() -> None:
        with suppress(Exception):
            wandb.teardown()

    thread = threading.Thread(target=end, daemon=True)
    thread.start()
    thread.join(TEARDOWN_SECONDS)


def _start_wandb(run_dir: Path, options: dict[str, Any]) -> Any:
    """Start a wandb run, online if possible.

    Lightning's logger would start it later, in the middle of the training. Here we can still handle
    a failure. Lightning's logger would also set WANDB_MODE for all later jobs of the process.
    """
    import wandb

    unknown = sorted(options.keys() - inspect.signature(wandb.init).parameters.keys())
    if unknown:
        raise SettingError(f"logger.{unknown[0]} is not an argument of wandb.init")
    # The id comes from the folder, so that a restart continues the same wandb run. With `resume`,
    # an upload with `wandb sync` appends the second start instead of overwriting the first.
    if "WANDB_RUN_ID" not in os.environ:  # `wandb agent` sets the id before it starts the run
        options.setdefault("id", hashlib.sha256(str(run_dir.resolve()).encode()).hexdigest()[:16])
    options.setdefault("resume", "allow")
    options["dir"] = str(run_dir)
    settings = {"finish_timeout": FINISH_SECONDS} | (options.pop("settings", None) or {})
    setting, wish = "logger.mode", options.pop("mode", None)
    if os.environ.get("WANDB_MODE"):
        setting, wish = "WANDB_MODE", os.environ["WANDB_MODE"]
    require(
        wish is None or wish in WANDB_MODES, setting, f"be one of {', '.join(WANDB_MODES)}", wish
    )
    run, reason = None, f"wandb is {wish}"
    if wish == "disabled":
        run = wandb.init(mode="disabled", settings=settings, **options)
    elif wish != "offline":
        try:
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                logged_in = wandb.login(prompt=False)
            reason = "no wandb login found"
            if logged_in:
                run = wandb.init(mode="online", settings=settings, **options)
        except wandb.Error as error:
            reason = f"wandb cannot be used online ({str(error).partition(chr(10))[0]})"
            _let_go()
    if run is None:
        # Without `silent`, wandb prints about ten lines, some of them about logging in.
        run = wandb.init(mode="offline", settings=settings | {"silent": True}, **options)
        command = shell(["wandb", "sync", os.path.relpath(run.settings.sync_dir)])
        log.warning("%s: logging offline (`%s` uploads it)", reason, command)
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    run.define_metric("val/top1", step_metric="trainer/global_step", summary="max")
    return run
