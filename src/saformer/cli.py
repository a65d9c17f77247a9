"""Entry points `saformer-train`, `-eval`, `-energy`, `-data`, `-table`: one function each.

Hydra composes what the first three do, and `saformer.experiment` does it.

Nothing is imported here that imports torch: help, `--cfg job` and tab completion must be instant.
Whatever the user got wrong is answered in one line with exit code 2; our own faults keep their
traceback.
"""

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from saformer.cluster import run_id
from saformer.config import VERSION_BASE, Config, check, conf_dir
from saformer.errors import SettingError, UserError
from saformer.overrides import explain, restore

# Why a file cannot be written: disk full, quota, read-only, no permission, a file in the way.
NO_PLACE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.ENOTDIR,
    errno.EEXIST,
}


def train() -> None:
    """Train a model: `saformer-train [group=option] [setting=value] [-m]`."""
    _run("train", _train)


def evaluate() -> None:
    """Evaluate a checkpoint: `saformer-eval ckpt_path=... [setting=value]`."""
    _run("eval", _evaluate)


def energy() -> None:
    """Report the energy of a checkpoint: `saformer-energy ckpt_path=... [setting=value]`."""
    _run("eval", _energy)


def data() -> None:
    """Get and look at datasets: `saformer-data list|fetch|check|build [DATASET ...]`."""
    from saformer.data.commands import run

    _call(run)


def table() -> None:
    """Tables from run folders: `saformer-table TABLE ... [setting=value] [--run]`."""
    from saformer.results.commands import run

    _call(run)


def _train(composed: DictConfig) -> float | tuple[float, ...]:
    config = check(composed)
    config.require_counted()
    from saformer import experiment

    return experiment.train(config, Path(HydraConfig.get().runtime.output_dir))


def _evaluate(composed: DictConfig) -> float:
    from saformer import experiment

    return experiment.evaluate(*_checkpoint(composed))


def _energy(composed: DictConfig) -> float:
    from saformer import experiment

    return experiment.report_energy(*_checkpoint(composed))


def _checkpoint(composed: DictConfig) -> tuple[Config, dict[str, Any]]:
    """The checkpoint that was named, and the settings it was trained with, as changed."""
    if composed.ckpt_path is None:
        raise SettingError("ckpt_path is not set: type ckpt_path=outputs/.../checkpoints/best.ckpt")
    from saformer.checkpoint import load_checkpoint, saved_config

    checkpoint = load_checkpoint(composed.ckpt_path)
    return check(restore(saved_config(checkpoint), composed, HydraConfig.get())), checkpoint


def _run(config_name: str, task: Callable[[DictConfig], float | tuple[float, ...]]) -> None:
    """Run `task` under Hydra and turn the user's mistakes into one line."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let Hydra raise, so that the wording is ours
    # Hydra's parser stops reading overrides at a flag: `seed=1 -m timesteps=1,2` would be refused.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda word: word not in ("-m", "--multirun"))
    OmegaConf.register_new_resolver("run_id", run_id, replace=True)

    def guarded(composed: DictConfig) -> float | tuple[float, ...]:
        try:
            return task(composed)
        except (UserError, HydraException, OSError) as error:
            # In a sweep Hydra must see the failure to go on with the other jobs; alone, its own
            # line about it would only stand before ours.
            if HydraConfig.get().mode is RunMode.MULTIRUN:
                raise
            _stop(error)

    main = hydra.main(
        version_base=VERSION_BASE, config_path=str(conf_dir()), config_name=config_name
    )
    try:
        main(guarded)()
    except (UserError, HydraException, OmegaConfBaseException, OSError, KeyboardInterrupt) as error:
        _stop(error)


def _call(command: Callable[[list[str]], int]) -> NoReturn:
    """Carry out a command line that is not Hydra's, and exit with its code."""
    try:
        code = command(sys.argv[1:])
    except (UserError, HydraException, OmegaConfBaseException, OSError, KeyboardInterrupt) as error:
        _stop(error)
    sys.exit(code)


def _stop(error: BaseException) -> NoReturn:
    """Exit with one line for what the user can mend; raise what is our own fault."""
    code = UserError.exit_code
    if isinstance(error, UserError):
        message, code = str(error), error.exit_code
    elif isinstance(error, KeyboardInterrupt):
        message, code = "interrupted", 130
    elif isinstance(error, HydraException | OmegaConfBaseException):  # some are OSErrors too
        message = explain(error)
    elif isinstance(error, OSError) and error.errno in NO_PLACE:
        message = (
            f"cannot write {error.filename or 'the run'}: {error.strerror}. Make room, or choose "
            "another folder with hydra.run.dir=..."
        )
    else:
        raise error
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":  # python -m saformer.cli: how saformer-table starts a training
    train()
