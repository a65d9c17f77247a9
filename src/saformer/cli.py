"""Entry points: `saformer COMMAND` and its alias `saformer-COMMAND`, one function for each command.

For train, eval and energy, Hydra composes the configuration and `saformer.runs.experiment` does the
work.

Imports at the top do not load torch, because help, `--cfg job` and tab completion must be instant.
A mistake of the user gives one line and exit code 2; our own bugs keep their traceback.
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

from saformer import __version__
from saformer.checkpoint_path import LATEST, TO_GO_ON, checkpoint_file, latest_run
from saformer.config.check import check, literal
from saformer.config.checkpoint_files import require_own_files
from saformer.config.files import conf_dir
from saformer.config.measured import require_measured
from saformer.config.overrides import (
    VERSION_BASE,
    at_home,
    explain,
    is_complaint,
    let_help_be_lazy,
)
from saformer.config.restore import restore
from saformer.config.schema import Config
from saformer.errors import SettingError, UserError, require
from saformer.escape import lines, override
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
from saformer.suggest import suggest

# Reasons why a file cannot be written: disk full, quota, size limit, read-only, permission, or a
# file where a folder should be.
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
    """Evaluate a checkpoint: `saformer-eval RUN [setting=value]`."""
    _run("eval", _evaluate)


def energy() -> None:
    """Report the energy of a checkpoint: `saformer-energy RUN [setting=value]`."""
    _run("energy", _energy)


def data() -> None:
    """Download and check datasets: `saformer-data list|fetch|check|build [DATASET ...]`."""
    from saformer.commands.data import run

    _call(run)


def table() -> None:
    """Make tables from run folders: `saformer-table TABLE ... [setting=value] [--run]`."""
    from saformer.commands.table import run

    _call(run)


def plot() -> None:
    """Draw figures from run folders: `saformer-plot WHAT TABLE|RUN ... [setting=value]`."""
    from saformer.commands.plot import run

    _call(run)


def import_checkpoint() -> None:
    """Convert a checkpoint of a rival: `saformer-import CHECKPOINT OUT model=...`."""
    from saformer.commands.import_checkpoint import run

    _call(run)


def export() -> None:
    """Export a checkpoint for deployment: `saformer-export RUN OUT`."""
    from saformer.commands.export import run

    _call(run)


COMMANDS: dict[str, Callable[[], None]] = {
    "train": train,
    "eval": evaluate,
    "energy": energy,
    "data": data,
    "table": table,
    "plot": plot,
    "import": import_checkpoint,
    "export": export,
}


def main() -> None:
    """Run a command: `saformer COMMAND ...` is the same as `saformer-COMMAND ...`."""
    name, *words = sys.argv[1:] or ["--help"]
    if name == "--version":
        print(f"saformer {__version__}")
    elif name in ("--help", "-h"):
        print("usage: saformer COMMAND [...]; for help: saformer COMMAND --help\n")
        for command in COMMANDS.values():
            print(f"  {command.__doc__}".replace("`saformer-", "`saformer "))
        print("\nRUN is the folder of a run, a checkpoint, or latest.")
    elif name in COMMANDS:
        # Use the alias, because Lightning starts more processes of a training by this name.
        sys.argv = [f"{sys.argv[0]}-{name}", *words]
        COMMANDS[name]()
    else:
        names = ", ".join(COMMANDS)
        hint = suggest(name, COMMANDS)
        _stop(SettingError(f"there is no command '{name}'.{hint} Commands: {names}"))


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
    if config.ckpt_path is not None:
        config.ckpt_path = str(checkpoint_file(config.ckpt_path, TO_GO_ON))
    if HydraConfig.get().mode is RunMode.MULTIRUN:
        require_same_run(folder, config)  # a repeated sweep resumes in the folders of its jobs
    from saformer.runs import experiment

    if cluster.needs_own_process(config.trainer):
        cluster.run_apart(folder)
        return experiment.objective(config.objective, folder)
    return experiment.train(config, folder)


def _evaluate(composed: DictConfig) -> float:
    config, checkpoint = _checkpoint(composed)
    from saformer.runs import experiment

    return experiment.evaluate(config, checkpoint)


def _energy(composed: DictConfig) -> float:
    config, checkpoint = _checkpoint(composed)
    from saformer.runs import experiment

    return experiment.report_energy(config, checkpoint)


def _checkpoint(composed: DictConfig) -> tuple[Config, dict[str, Any]]:
    """Load the named checkpoint, and its settings with the typed changes."""
    if not composed.ckpt_path:
        raise SettingError(
            "ckpt_path is not set: type ckpt_path=RUN, the folder of a run, a checkpoint, or latest"
        )
    from saformer.checkpoint import load_checkpoint, saved_config

    path = checkpoint_file(composed.ckpt_path)
    checkpoint = load_checkpoint(path)
    composed.ckpt_path = literal(str(path))
    typed = list(HydraConfig.get().overrides.task)
    return check(restore(saved_config(checkpoint), composed, typed)), checkpoint


def _run(config_name: str, task: Callable[[DictConfig], float | tuple[float, ...]]) -> None:
    """Run `task` under Hydra and turn the user's mistakes into one line."""
    sys.argv[1:] = map(at_home, sys.argv[1:])
    _speak_in_any_locale()
    try:
        sys.argv[1:] = _with_checkpoint(config_name, sys.argv[1:])
    except UserError as error:
        _stop(error)
    let_help_be_lazy()
    if "${" in (here := os.getcwd()):  # Hydra would resolve it and work in another folder
        _stop(SettingError(f"{here}: cannot work in a folder with ${{ in its name: rename it"))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors, and we word them
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
            # In a sweep, Hydra must see the failure, so that it runs the other jobs. In a single
            # run, its message would only be printed before ours.
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


def _with_checkpoint(config_name: str, words: list[str]) -> list[str]:
    """Turn a checkpoint that is the first word, or `latest`, into an override of ckpt_path.

    Raises:
        SettingError: A job asks for `latest`, but its processes and restarts may find other runs.
        CheckpointError: No run has a checkpoint.
    """
    first = words[0] if words and config_name != "train" else ""
    if first and "=" not in first and not first.startswith(("-", "~")):
        words = [f"ckpt_path={override(first)}", *words[1:]]
    # Further processes of a run read sys.argv: each would look for the latest run by itself.
    asked = f"ckpt_path={LATEST}"
    if asked in words and not Path(LATEST).exists():
        rule = "name a run in a job, since its processes and restarts may find other runs"
        require(not cluster.in_job(), "ckpt_path", rule, LATEST)
        latest = f"ckpt_path={override(str(latest_run()))}"
        words = [latest if word == asked else word for word in words]
    return words


def _leave_nothing(folder: Path) -> None:
    """Remove the folder of a run that we refused; Hydra made it before we checked the settings.

    Remove it only if we chose its name and it holds only its settings and a log. If another start
    uses the folder, it also holds a lock, and it stays.
    """
    try:
        ours_by_name = folder.name == cluster.run_id()
    except SettingError:  # the environment has an impossible name, so the folder has another one
        return
    if not ours_by_name:
        return
    expected = {folder / ".hydra" / f"{name}.yaml" for name in ("config", "hydra", "overrides")}
    expected.add(folder / "train.log")
    files = {path for path in folder.rglob("*") if not path.is_dir()}
    if not files <= expected:
        return
    cluster.close_log_files()
    with suppress(OSError):  # the folders above may contain other things
        for file in files:
            file.unlink()
        for empty in (folder / ".hydra", folder, folder.parent):
            empty.rmdir()


def _speak_in_any_locale() -> None:
    """Print "?" for characters that the terminal cannot show, instead of failing after a run."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _keep_compiled() -> None:
    """Keep compiled kernels in the user's cache folder, so that the next run starts fast.

    By default PyTorch uses the temporary folder, which a restart or the end of a job clears.
    """
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = cache / "saformer" / "inductor"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # the home folder is missing or read-only
        return
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))


def _was_told(failure: BaseException, sweep: Multirun) -> bool:
    """Whether the report has already named this failure of a job, here or on a node."""
    if isinstance(failure, KeyboardInterrupt):
        return False
    words = in_one_line(failure) or f"{type(failure).__name__}: {failure}"
    return sweep.failed or words in sweep.reasons


def _call(command: Callable[[list[str]], int]) -> NoReturn:
    """Run a command that does not use Hydra, and exit with its code."""
    _speak_in_any_locale()
    try:
        code = command([at_home(word) for word in sys.argv[1:]])
    except (UserError, HydraException, OmegaConfBaseException, OSError, KeyboardInterrupt) as error:
        _stop(error)
    sys.exit(code)


def _stop(error: BaseException) -> NoReturn:
    """Exit with one line for an error that the user can fix; raise one that is our bug."""
    message = in_one_line(error)
    if message is None:
        raise error
    code = UserError.exit_code
    told = cluster.speaks()
    if isinstance(error, KeyboardInterrupt):
        code = cluster.interruption(error)[1]
        told = cluster.rank() == 0  # all processes get the signal, but only one reports it
        atexit.register(_be_deaf)  # the signal may come again while we exit
    elif isinstance(error, UserError):
        code = error.exit_code
    if told:
        who = f" in process {cluster.rank()}" if cluster.rank() else ""
        print(f"error{who}: {message}", file=sys.stderr)
    sys.exit(code)


def _be_deaf() -> None:
    """Ignore further signals, and loader processes that end by them, which torch raises about."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def in_one_line(error: BaseException) -> str | None:
    """The message of an error that the user can fix, in one line; None if it is our bug."""
    words = _in_words(error)
    return None if words is None else lines(words)


def _in_words(error: BaseException) -> str | None:
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return cluster.interruption(error)[0]
    if is_complaint(error):  # before OSError, because some complaints are OSErrors
        return explain(error)
    if (refusal := cluster.refusal(error)) is not None:
        return refusal
    if isinstance(error, OSError) and error.errno in NO_PLACE:
        return (
            f"cannot write {error.filename or 'the run'}: {error.strerror}. Make room, or choose "
            "another folder (for a training: hydra.run.dir=...)"
        )
    return None


if __name__ == "__main__":  # python -m saformer.cli: how saformer-table starts a training
    train()
