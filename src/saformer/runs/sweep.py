"""A multirun on the terminal: `[3/8]` before each job, a table of all of them at the end.

Nothing here runs a job: Hydra's sweeper and launcher do. What a job is and how it ended stands in
its folder, so the table is the same wherever the jobs ran. Nothing here imports torch.
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
# The launcher names each job as well; alembic tells how it looks after the tables of a study.
CHATTY = ("hydra._internal.core_plugins.basic_launcher", "alembic")
NOT_SHOWN = ("hydra.", "sweep=", "launcher=")


class Multirun(Callback):
    """Hydra's callback: knows the sweep while it runs in this process.

    It looks at names too, before Hydra makes folders of them.
    """

    current: "Multirun | None" = None
    """The multirun of this process, once it has begun."""

    def __init__(self) -> None:
        self.folder = Path()
        self.total: int | None = None
        self.study = False
        self.failed = False
        """Whether a job of this process failed, which was said then."""
        self.refused: dict[int, Job] = {}
        """Jobs of this process whose folder holds another run, by their number."""
        self.reasons: set[str] = set()
        """Why jobs failed, wherever they ran, as the report has said."""

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
        if self.study and storage.startswith("sqlite:///"):  # it makes its file, but not the folder
            Path(storage.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        if Multirun.current is self:
            of = f"/{self.total}" if self.total else ""
            words = " ".join(settings_of(config.hydra.overrides.task))
            print()
            say(f"[{config.hydra.job.num + 1}{of}] {words}")

    def report(self) -> bool:
        """Print how each job ended, and how to go on.

        Returns:
            Whether all of them did what they should.
        """
        from saformer.terminal import console  # late, because every command imports this file

        found = {job.number: job for job in find_jobs(self.folder)} | self.refused
        jobs = [job for _, job in sorted(found.items())]
        if self.total and not self.study:  # the folder may have more, of an earlier command
            jobs = [job for job in jobs if job.number < self.total]
        if not jobs:  # whatever stopped it stopped it before the first
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
        # Of no use where the same command fails again.
        if absent > 0 or "cut off" in ended or ended >= {"done", "failed"}:
            say(self._how_to_go_on())
        return whole and not self.failed

    def _how_to_go_on(self) -> str:
        if self.study:
            return "the same command adds its trials to the study"
        word = shell([f"hydra.sweep.dir={override(shown(self.folder))}"])
        return f"the same command with {word} goes on: what is done is skipped"


def note_failure(error: BaseException, message: str | None) -> None:
    """Say on the terminal and in its log why a job failed.

    Args:
        error: What it raised.
        message: The same in words; None for a fault of ours, which keeps its traceback.
    """
    sweep = Multirun.current
    if isinstance(error, OtherRunError):
        close_log_files()  # that of the other run
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
    """One job of a sweep, as its folder tells.

    Args:
        number: Its place in the sweep; the first is 0.
        folder: Its run folder.
        words: Its overrides.
        results: Its results.json; None if it did not come to its end.
        refusal: Why it was not begun, where its folder holds another run.
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
        """Why it failed, as its log says; None if it did not, or was killed."""
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
    """The jobs of a sweep that were started, in their order."""
    jobs = []
    for file in folder.rglob(".hydra/overrides.yaml"):
        run = file.parent.parent
        hydra = yaml.safe_load(file.with_name("hydra.yaml").read_text(encoding="utf-8"))["hydra"]
        number = hydra["job"]["num"]
        if number == "???":  # a single run, in the folder that the sweep was given
            continue
        words = settings_of(yaml.safe_load(file.read_text(encoding="utf-8")))
        jobs.append(Job(int(number), run, words, done_results(run)))
    return sorted(jobs, key=lambda job: job.number)


def as_table(jobs: Sequence[Job]) -> "Table":
    """What varies between the jobs, accuracy, SOPs, energy, and how they ended."""
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
    """Write the settings of a run's first start, which `find_jobs` reads; run.json has all.

    Hydra's own way of writing them comes before the folder is locked.

    Args:
        folder: Folder of the run.
        composed: Its settings, as Hydra made them.
    """
    if (folder / "run.json").exists():
        return
    chosen = HydraConfig.get()
    kept = {"config": composed, "hydra": {"hydra": chosen}, "overrides": chosen.overrides.task}
    (folder / ".hydra").mkdir(exist_ok=True)
    for name, value in kept.items():
        path = folder / ".hydra" / f"{name}.yaml"
        path.write_text(OmegaConf.to_yaml(value), encoding="utf-8")


def settings_of(words: Sequence[str]) -> list[str]:
    """Overrides without those that say how jobs are started."""
    return [word for word in words if not word.startswith(NOT_SHOWN)]


def require_multirun(chosen: HydraConf) -> None:
    """Refuse options that only a multirun can follow.

    Raises:
        SettingError: A sweep or a launcher was chosen for a single run.
    """
    # A job that a multirun runs in a process of its own has a number.
    if chosen.mode is RunMode.MULTIRUN or not OmegaConf.is_missing(chosen.job, "num"):
        return
    for group, meaning in (("sweep", "is many runs"), ("launcher", "is for the runs of a sweep")):
        option = chosen.runtime.choices.get(group)
        if option:
            raise SettingError(f"{group}={option} {meaning}: add -m")


def require_same_run(folder: Path, config: Config) -> None:
    """Refuse to take the run in a folder for one of other settings.

    Args:
        folder: Folder of the run.
        config: What is to be run there.

    Raises:
        OtherRunError: The folder holds a run of other settings; the message names one.
    """
    path = folder / "run.json"
    if not path.exists():
        return
    start = json.loads(path.read_text(encoding="utf-8"))["starts"][-1]
    saved, own = start["config"], json.loads(json.dumps(to_dict(config)))
    batch = start.get("effective_batch")
    before = defining(saved, batch) | {"seed": saved["seed"]}
    now = defining(own, batch) | {"seed": own["seed"]}
    for name, (first, then) in differences(before, now).items():
        raise OtherRunError(
            f"{shown(folder)} holds another run, with {name}={first} where this one has "
            f"{name}={then}: choose another folder with hydra.run.dir=..., of a sweep with "
            "hydra.sweep.dir=..."
        )


def _require_directions(config: DictConfig) -> None:
    """Stop before a study is made that could take no result of its trials."""
    directions = config.hydra.sweeper.get("direction")
    if directions is None:  # no search
        return
    each: list[Any] = [directions] if isinstance(directions, str | Enum) else list(directions)
    require_directions(
        config.objective, [one if isinstance(one, str) else one.name for one in each]
    )


def _require_names(config: DictConfig) -> None:
    """Stop before a folder or a log file is made where a name leads out of its place."""
    for setting in ("name", "hydra.job.name"):
        with suppress(OmegaConfBaseException):  # Hydra tells it better
            name = OmegaConf.select(config, setting)
            if isinstance(name, str) and name:
                require_name(setting, name)


def _require_lines(config: DictConfig) -> None:
    """Stop before a job script is written in which a setting would have lines of its own."""
    names = [f"hydra.{node}.{key}" for node in ("sweep", "launcher") for key in config.hydra[node]]
    for name in names:
        if name == "hydra.launcher.setup":  # lines of a shell by itself
            continue
        with suppress(OmegaConfBaseException):  # some are known on the node alone
            for text in _texts(OmegaConf.select(config, name)):
                require_line(name, text)


def _texts(value: Any) -> Iterator[str]:
    """Every text in a setting."""
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
    """Say what is wrong with the settings, and leave: Hydra makes a warning of what is raised."""
    try:
        yield
    except SettingError as error:
        if speaks():
            say(f"error: {error}", sys.stderr)
        sys.exit(error.exit_code)


def _number_of_jobs(config: DictConfig) -> int | None:
    """How many jobs a sweep has; None if only the sweeper knows."""
    sweeper = config.hydra.sweeper
    if "n_trials" in sweeper:
        return int(sweeper.n_trials)
    words = [f"{name}={value}" for name, value in (sweeper.get("params") or {}).items()]
    try:
        overrides = OverridesParser.create().parse_overrides(words + config.hydra.overrides.task)
        return math.prod(len(batch) for batch in BasicSweeper.split_arguments(overrides, None))
    except HydraException:  # glob(*) wants the files of a group, or it is another sweeper's words
        return None
