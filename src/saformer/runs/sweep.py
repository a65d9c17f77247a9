"""A multirun on the terminal: `[3/8]` before each job, and a table of all jobs at the end.

Hydra's sweeper and launcher run the jobs; this module only reports. It reads each job's settings
and results from its folder, so the table does not depend on the machines where the jobs ran. This
module imports no torch.
"""

import json
import logging
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from saformer.config.check import to_dict
from saformer.config.measured import require_directions
from saformer.config.schema import Config
from saformer.errors import OtherRunError, SettingError
from saformer.escape import override, plain, say, shell
from saformer.names import require_line, require_name
from saformer.runs.cluster import close_log_files, pin_sweep_folder, speaks
from saformer.runs.columns import COLUMNS
from saformer.runs.folder import done_results, shown
from saformer.runs.identity import defining, differences

if TYPE_CHECKING:
    from rich.table import Table

log = logging.getLogger(__name__)

MEASURED = ("test_top1", "sops", "energy")
# The launcher logs each job too, and alembic logs its work on the tables of a study.
CHATTY = ("hydra._internal.core_plugins.basic_launcher", "alembic")
NOT_SHOWN = ("hydra.", "sweep=", "launcher=")


class Multirun(Callback):
    """Hydra's callback, which keeps the state of the sweep that runs in this process.

    It also checks names before Hydra creates folders from them.
    """

    current: "Multirun | None" = None
    """The multirun of this process, None before its start."""

    def __init__(self) -> None:
        self.folder = Path()
        self.total: int | None = None
        self.study = False
        self.failed = False
        """Whether a job of this process failed; its error was printed at that time."""
        self.refused: dict[int, Job] = {}
        """Jobs of this process whose folder holds another run, by their number."""
        self.reasons: set[str] = set()
        """Reasons of failed jobs on any machine, as the report has printed them."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        with _told():
            _require_names(config)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        with _told():
            _require_directions(config)
            _require_names(config)
            _require_lines(config)
        Multirun.current = self
        pin_sweep_folder(config)
        self.folder = Path(config.hydra.sweep.dir)
        self.total = _number_of_jobs(config)
        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
        storage = OmegaConf.select(config, "hydra.sweeper.storage")
        self.study = storage is not None
        if self.study and storage.startswith("sqlite:///"):  # SQLite does not create the folder
            Path(storage.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        if Multirun.current is self:
            of = f"/{self.total}" if self.total else ""
            words = " ".join(settings_of(config.hydra.overrides.task))
            print()
            say(f"[{config.hydra.job.num + 1}{of}] {words}")

    def report(self) -> bool:
        """Print how each job ended, and how to resume the sweep.

        Returns:
            Whether all jobs succeeded.
        """
        from saformer.terminal import console  # late, because every command imports this file

        by_number = {job.number: job for job in find_jobs(self.folder)} | self.refused
        jobs = [job for _, job in sorted(by_number.items())]
        if self.total and not self.study:  # ignore further jobs of an earlier command in the folder
            jobs = [job for job in jobs if job.number < self.total]
        if not jobs:  # the sweep ended before its first job
            return True
        console().print(as_table(jobs))
        for job in jobs:
            if job.results is None:
                reason = job.failure or "it was cut off"
                self.reasons.add(reason)
                log = "" if job.refusal else f"   log {shown(job.log)}"
                say(f"job {job.number + 1}: {reason}{log}")
        absent = (self.total or len(jobs)) - len(jobs)
        if absent > 0:
            print(f"{absent} of {self.total} jobs were not started")
        whole = absent <= 0 and all(job.results is not None for job in jobs)
        ended = {job.status for job in jobs}
        # Without one of these, the same command would only fail again.
        if absent > 0 or "cut off" in ended or ended >= {"done", "failed"}:
            say(self._how_to_go_on())
        return whole and not self.failed

    def _how_to_go_on(self) -> str:
        if self.study:
            return "repeat the command to add its trials to the study"
        word = shell([f"hydra.sweep.dir={override(shown(self.folder))}"])
        return f"to resume, repeat the command with {word}: finished jobs are skipped"


def note_failure(error: BaseException, message: str | None) -> None:
    """Log on the terminal and in the job's log file why a job failed.

    Args:
        error: The exception of the job.
        message: Message for the user; None for an error in our code, whose traceback is logged.
    """
    sweep = Multirun.current
    if isinstance(error, OtherRunError):
        close_log_files()  # the log file in the folder belongs to the other run
        if sweep is not None:
            chosen = HydraConfig.get()
            folder, words = Path(chosen.runtime.output_dir), settings_of(chosen.overrides.task)
            sweep.refused[chosen.job.num] = Job(chosen.job.num, folder, words, None, message)
    if message is None:
        log.error("error: %s: %s", type(error).__name__, error, exc_info=error)
    else:
        log.error("error: %s", message)
    if sweep is not None:
        sweep.failed = True


@dataclass(frozen=True)
class Job:
    """One job of a sweep, as its folder describes it.

    Args:
        number: Number of the job in the sweep, from 0.
        folder: Run folder of the job.
        words: Overrides of the job.
        results: Content of results.json; None if the job did not finish.
        refusal: Why the job was not started, if its folder holds another run.
    """

    number: int
    folder: Path
    words: list[str]
    results: dict[str, Any] | None
    refusal: str | None = None

    @property
    def log(self) -> Path:
        """File that its log is in."""
        return self.folder / "train.log"

    @property
    def failure(self) -> str | None:
        """Reason of a failure, from the log; None if the job did not fail or was killed."""
        if self.refusal:
            return self.refusal
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            lines = []
        said = [line for line in lines if line.startswith("error: ")]
        return said[-1].removeprefix("error: ") if said else None

    @property
    def status(self) -> str:
        """How it ended, in a word: done, refused, failed or cut off."""
        if self.results is not None:
            return "done"
        if self.refusal:
            return "refused"
        return "failed" if self.failure else "cut off"


def find_jobs(folder: Path) -> list[Job]:
    """The started jobs of a sweep, sorted by number."""
    jobs = []
    for file in folder.rglob(".hydra/overrides.yaml"):
        run = file.parent.parent
        hydra = yaml.safe_load(file.with_name("hydra.yaml").read_text(encoding="utf-8"))["hydra"]
        number = hydra["job"]["num"]
        if number == "???":  # it is a single run, which is not a job of the sweep
            continue
        words = settings_of(yaml.safe_load(file.read_text(encoding="utf-8")))
        jobs.append(Job(int(number), run, words, done_results(run)))
    return sorted(jobs, key=lambda job: job.number)


def as_table(jobs: Sequence[Job]) -> "Table":
    """A table of the settings that vary between jobs, accuracy, SOPs, energy and status."""
    from rich.table import Table
    from rich.text import Text

    split = [dict(word.lstrip("+").split("=", 1) for word in job.words) for job in jobs]
    names = list(dict.fromkeys(name for words in split for name in words))
    varied = [name for name in names if len({words.get(name) for words in split}) > 1]
    columns = [COLUMNS[name] for name in MEASURED]
    table = Table("job")
    for name in varied:
        table.add_column(Text(plain(name)))
    measured = [[column.read(job.results or {}) for column in columns] for job in jobs]
    units = []
    for i, column in enumerate(columns):
        unit, factor = column.unit([row[i] for row in measured])
        units.append(factor)
        table.add_column(column.header.format(unit=unit), justify="right")
    table.add_column("status")
    for job, words, row in zip(jobs, split, measured, strict=True):
        cells = [
            "" if value is None else f"{value * factor:.{column.digits(value * factor)}f}"
            for value, column, factor in zip(row, columns, units, strict=True)
        ]
        chosen = [Text(plain(words.get(name, ""))) for name in varied]
        table.add_row(str(job.number + 1), *chosen, *cells, job.status)
    return table


def keep_composed(folder: Path, composed: DictConfig) -> None:
    """Write the settings of a run's first start for `find_jobs`; run.json has those of all starts.

    Hydra could write them itself, but it would do so before the folder is locked.

    Args:
        folder: Folder of the run.
        composed: Settings of the run, as Hydra composed them.
    """
    if (folder / "run.json").exists():
        return
    chosen = HydraConfig.get()
    files = {"config": composed, "hydra": {"hydra": chosen}, "overrides": chosen.overrides.task}
    (folder / ".hydra").mkdir(exist_ok=True)
    for name, value in files.items():
        path = folder / ".hydra" / f"{name}.yaml"
        path.write_text(OmegaConf.to_yaml(value), encoding="utf-8")


def settings_of(words: Sequence[str]) -> list[str]:
    """Overrides without those that control how jobs are started."""
    return [word for word in words if not word.startswith(NOT_SHOWN)]


def require_multirun(chosen: HydraConf) -> None:
    """Refuse options that work only in a multirun.

    Raises:
        SettingError: A sweep or a launcher was chosen for a single run.
    """
    # A job that a multirun started in its own process is a single run, but it has a job number.
    if chosen.mode is RunMode.MULTIRUN or not OmegaConf.is_missing(chosen.job, "num"):
        return
    for group, meaning in (("sweep", "is many runs"), ("launcher", "is for the runs of a sweep")):
        option = chosen.runtime.choices.get(group)
        if option:
            raise SettingError(f"{group}={option} {meaning}: add -m")


def require_same_run(folder: Path, config: Config) -> None:
    """Refuse a folder that holds a run with other settings.

    Args:
        folder: Folder of the run.
        config: Settings of the run to start in this folder.

    Raises:
        OtherRunError: The folder holds a run with other settings; the message names one of them.
    """
    path = folder / "run.json"
    if not path.exists():
        return
    start = json.loads(path.read_text(encoding="utf-8"))["starts"][-1]
    saved, new = start["config"], json.loads(json.dumps(to_dict(config)))
    batch = start.get("effective_batch")
    before = defining(saved, batch) | {"seed": saved["seed"]}
    now = defining(new, batch) | {"seed": new["seed"]}
    for name, (first, then) in differences(before, now).items():
        raise OtherRunError(
            f"{shown(folder)} holds another run, with {name}={first} where this one has "
            f"{name}={then}: choose another folder with hydra.run.dir=..., of a sweep with "
            "hydra.sweep.dir=..."
        )


def _require_directions(config: DictConfig) -> None:
    """Check the directions of a search before its study is created, which could take no result."""
    directions = config.hydra.sweeper.get("direction")
    if directions is None:  # the sweep is not a search
        return
    listed: list[Any] = [directions] if isinstance(directions, str | Enum) else list(directions)
    require_directions(
        config.objective,
        [direction if isinstance(direction, str) else direction.name for direction in listed],
    )


def _require_names(config: DictConfig) -> None:
    """Refuse names that would lead out of their folder, before a folder or log file is created."""
    for setting in ("name", "hydra.job.name"):
        with suppress(OmegaConfBaseException):  # Hydra's own message is better
            name = OmegaConf.select(config, setting)
            if isinstance(name, str) and name:
                require_name(setting, name)


def _require_lines(config: DictConfig) -> None:
    """Refuse settings with line breaks, because they would add lines to a job script."""
    names = [f"hydra.{node}.{key}" for node in ("sweep", "launcher") for key in config.hydra[node]]
    for name in names:
        if name == "hydra.launcher.setup":  # it is meant to hold lines of a shell
            continue
        with suppress(OmegaConfBaseException):  # some can be resolved only on the node
            for text in _texts(OmegaConf.select(config, name)):
                require_line(name, text)


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in a setting."""
    if isinstance(value, DictConfig):
        for key, inner in value.items():
            yield str(key)
            yield from _texts(inner)
    elif isinstance(value, ListConfig):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, str):
        yield value


@contextmanager
def _told() -> Iterator[None]:
    """Print an error of the settings and exit, because Hydra would turn it into a warning."""
    try:
        yield
    except SettingError as error:
        if speaks():
            say(f"error: {error}", sys.stderr)
        sys.exit(error.exit_code)


def _number_of_jobs(config: DictConfig) -> int | None:
    """Number of jobs of a sweep; None if only the sweeper knows it."""
    sweeper = config.hydra.sweeper
    if "n_trials" in sweeper:
        return int(sweeper.n_trials)
    words = [f"{name}={value}" for name, value in (sweeper.get("params") or {}).items()]
    try:
        overrides = OverridesParser.create().parse_overrides(words + config.hydra.overrides.task)
        return math.prod(len(batch) for batch in BasicSweeper.split_arguments(overrides, None))
    except HydraException:  # glob(*) needs the files of a group, or the syntax is another sweeper's
        return None
