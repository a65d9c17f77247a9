"""Entry points: a function for each of `saformer-train`, `-eval`, `-energy`, `-data`, `-table`,
`-plot`, `-import` and `-export`.

Hydra composes what the first three do, and `saformer.runs.experiment` does it.

Nothing is imported here that imports torch: help, `--cfg job` and tab completion must be instant.
Whatever the user got wrong is answered in one line with exit code 2; our own faults keep their
traceback.
"""

import atexit
import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from saformer.config.check import check
from saformer.config.checkpoint_files import require_own_files
from saformer.config.files import conf_dir
from saformer.config.measured import require_measured
from saformer.config.overrides import VERSION_BASE, at_home, explain, is_complaint
from saformer.config.restore import restore
from saformer.config.schema import Config
from saformer.errors import SettingError, UserError
from saformer.escape import lines
from saformer.names import require_name
from saformer.runs import cluster
from saformer.runs.lock import held
from saformer.runs.sweep import (
    Multirun,
    keep_composed,
    note_failure,
    require_multirun,
    require_same_run,
)

# Why a file cannot be written: disk full, quota, limit, read-only, permission, a file in the way.
NO_PLACE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
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
    _run("energy", _energy)


def data() -> None:
    """Get and look at datasets: `saformer-data list|fetch|check|build [DATASET ...]`."""
    from saformer.commands.data import run

    _call(run)


def table() -> None:
    """Tables from run folders: `saformer-table TABLE ... [setting=value] [--run]`."""
    from saformer.commands.table import run

    _call(run)


def plot() -> None:
    """Figures from run folders: `saformer-plot WHAT TABLE|RUN ... [setting=value]`."""
    from saformer.commands.plot import run

    _call(run)


def import_checkpoint() -> None:
    """A checkpoint of ours from a rival's own: `saformer-import CHECKPOINT OUT model=...`."""
    from saformer.commands.import_checkpoint import run

    _call(run)


def export() -> None:
    """A checkpoint as files for deployment: `saformer-export CHECKPOINT OUT`."""
    from saformer.commands.export import run

    _call(run)


def _train(composed: DictConfig) -> float | tuple[float, ...]:
    folder = Path(HydraConfig.get().runtime.output_dir)
    if cluster.rank() > 0:  # the first process holds the folder for all
        return _train_in(folder, composed)
    with held(folder):
        keep_composed(folder, composed)
        return _train_in(folder, composed)


def _train_in(folder: Path, composed: DictConfig) -> float | tuple[float, ...]:
    config = check(composed)
    require_name("name", config.name)
    require_measured(config)
    require_own_files(config.callbacks)
    if HydraConfig.get().mode is RunMode.MULTIRUN:
        require_same_run(folder, config)  # a repeated sweep goes on in the folders of its jobs
    from saformer.runs import experiment

    if cluster.needs_own_process(config.trainer):
        cluster.run_apart(folder)
        return experiment.objective(config.objective, folder)
    return experiment.train(config, folder)


def _evaluate(composed: DictConfig) -> float:
    found = _checkpoint(composed)
    from saformer.runs import experiment

    return experiment.evaluate(*found)


def _energy(composed: DictConfig) -> float:
    found = _checkpoint(composed)
    from saformer.runs import experiment

    return experiment.report_energy(*found)


def _checkpoint(composed: DictConfig) -> tuple[Config, dict[str, Any]]:
    """The checkpoint that was named, and the settings it was trained with, as changed."""
    if not composed.ckpt_path:
        raise SettingError("ckpt_path is not set: type ckpt_path=outputs/.../checkpoints/best.ckpt")
    from saformer.checkpoint import load_checkpoint, saved_config

    checkpoint = load_checkpoint(composed.ckpt_path)
    typed = list(HydraConfig.get().overrides.task)
    return check(restore(saved_config(checkpoint), composed, typed)), checkpoint


def _run(config_name: str, task: Callable[[DictConfig], float | tuple[float, ...]]) -> None:
    """Run `task` under Hydra and turn the user's mistakes into one line."""
    sys.argv[1:] = map(at_home, sys.argv[1:])
    _speak_in_any_locale()
    if "${" in (here := os.getcwd()):  # Hydra would work in another, after the environment's words
        _stop(SettingError(f"{here}: a folder with ${{ in its name cannot be worked in: rename it"))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let Hydra raise, so that the wording is ours
    # Hydra's parser stops reading overrides at a flag: `seed=1 -m timesteps=1,2` would be refused.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda word: word not in ("-m", "--multirun"))

    def guarded(composed: DictConfig) -> float | tuple[float, ...]:
        several = HydraConfig.get().mode is RunMode.MULTIRUN
        try:
            cluster.prepare()
            _keep_compiled()
            require_multirun(HydraConfig.get())
            return task(composed)
        except Exception as error:
            # In a sweep Hydra must see the failure to go on with the other jobs; alone, its own
            # line about it would only stand before ours.
            if several:
                note_failure(error, in_one_line(error))
                raise
            if not isinstance(error, UserError | HydraException | OSError):
                raise
            if cluster.rank() == 0:
                _leave_nothing(Path(HydraConfig.get().runtime.output_dir))
            _stop(error)

    main = hydra.main(
        version_base=VERSION_BASE, config_path=str(conf_dir()), config_name=config_name
    )
    failure: BaseException | None = None
    Multirun.current = None
    try:
        if {"-m", "--multirun"} & set(sys.argv):
            cluster.require_alone()
        main(guarded)()
    except (Exception, KeyboardInterrupt) as error:
        failure = error
    sweep = Multirun.current
    whole = sweep.report() if sweep else True
    if failure is not None and not (sweep is not None and _was_told(failure, sweep)):
        _stop(failure)
    if not whole:
        sys.exit(1)


def _leave_nothing(folder: Path) -> None:
    """Remove the folder of a run that was refused before it began; Hydra makes it before we see it.

    Only one that has its name from us and holds nothing but its settings and a log: not that of
    another start, whose lock is there.
    """
    try:
        ours_by_name = folder.name == cluster.run_id()
    except SettingError:  # the environment names no run, and this folder has another name
        return
    if not ours_by_name:
        return
    ours = {folder / ".hydra" / f"{name}.yaml" for name in ("config", "hydra", "overrides")}
    ours.add(folder / "train.log")
    files = {path for path in folder.rglob("*") if not path.is_dir()}
    if not files <= ours:
        return
    cluster.close_log_files()
    with suppress(OSError):  # the others may have something in them
        for file in files:
            file.unlink()
        for empty in (folder / ".hydra", folder, folder.parent):
            empty.rmdir()


def _speak_in_any_locale() -> None:
    """Print "?" for what the terminal cannot show, rather than fail at the end of a run."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _keep_compiled() -> None:
    """Keep what torch.compile makes in the user's cache, so that the next run starts fast.

    PyTorch's own place is the temporary folder, which a restart or the end of a job clears.
    """
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = cache / "saformer" / "inductor"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # a home that cannot be written, or none
        return
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))


def _was_told(failure: BaseException, sweep: Multirun) -> bool:
    """Whether a failure is that of a job, here or on a node, that the report has named."""
    if isinstance(failure, KeyboardInterrupt):
        return False
    words = in_one_line(failure) or f"{type(failure).__name__}: {failure}"
    return sweep.failed or words in sweep.reasons


def _call(command: Callable[[list[str]], int]) -> NoReturn:
    """Carry out a command line that is not Hydra's, and exit with its code."""
    _speak_in_any_locale()
    try:
        code = command([at_home(word) for word in sys.argv[1:]])
    except (UserError, HydraException, OmegaConfBaseException, OSError, KeyboardInterrupt) as error:
        _stop(error)
    sys.exit(code)


def _stop(error: BaseException) -> NoReturn:
    """Exit with one line for what the user can mend; raise what is our own fault."""
    message = in_one_line(error)
    if message is None:
        raise error
    code = UserError.exit_code
    told = cluster.speaks()
    if isinstance(error, KeyboardInterrupt):
        code = cluster.interruption(error)[1]
        told = cluster.rank() == 0  # all processes get the signal, and one is enough to tell it
        atexit.register(_be_deaf)  # it may come twice, in the midst of leaving
    elif isinstance(error, UserError):
        code = error.exit_code
    if told:
        who = f" in process {cluster.rank()}" if cluster.rank() else ""
        print(f"error{who}: {message}", file=sys.stderr)
    sys.exit(code)


def _be_deaf() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def in_one_line(error: BaseException) -> str | None:
    """What the user can mend, in printable words; None for what is our own fault."""
    words = _in_words(error)
    return None if words is None else lines(words)


def _in_words(error: BaseException) -> str | None:
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return cluster.interruption(error)[0]
    if is_complaint(error):  # some are OSErrors too
        return explain(error)
    if (refusal := cluster.refusal(error)) is not None:
        return refusal
    if isinstance(error, OSError) and error.errno in NO_PLACE:
        return (
            f"cannot write {error.filename or 'the run'}: {error.strerror}. Make room, or choose "
            "another folder (of a training with hydra.run.dir=...)"
        )
    return None


if __name__ == "__main__":  # python -m saformer.cli: how saformer-table starts a training
    train()
