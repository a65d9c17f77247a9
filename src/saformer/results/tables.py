"""A table: for every row, the run of each seed with its numbers, or the command to make the run."""

from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from saformer.dotted import leaves
from saformer.errors import SettingError
from saformer.escape import override, shell
from saformer.results.published import Figure, Source
from saformer.results.settings import TableConfig
from saformer.runs.columns import Column, column
from saformer.runs.folder import Run, shown
from saformer.runs.identity import SAME, differences, wanted

OUTPUTS = Path("outputs")  # default folder of runs
NEAR = 3  # the table reports a run that differs from a row in at most this many settings


@dataclass(frozen=True)
class Cell:
    """Values of one column over the seeds of a row."""

    values: dict[int, float] = field(default_factory=dict)
    convention: str | None = None

    @property
    def mean(self) -> float | None:
        """Mean over the seeds; None without any."""
        return mean(self.values.values()) if self.values else None

    @property
    def std(self) -> float | None:
        """Sample standard deviation; None for fewer than two seeds."""
        return stdev(self.values.values()) if len(self.values) > 1 else None


@dataclass
class Row:
    """One experiment of a table.

    Args:
        section: Heading above the row.
        label: Name of the row.
        words: Overrides of the experiment.
        config: The whole configuration as plain values; its seed has no meaning.
        seeds: Seeds of the row.
        published: Published figures of the method, with their sources.
        runs: The finished run of each seed that has one.
        cut: An unfinished run of each other seed that was started; if there are several, one that
            is being trained now.
    """

    section: str
    label: str
    words: list[str]
    config: dict[str, Any] = field(repr=False)
    seeds: list[int]
    published: list[tuple[Figure, Source]] = field(default_factory=list, repr=False)
    runs: dict[int, Run] = field(default_factory=dict)
    cut: dict[int, Run] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its label, behind the heading that it stands under."""
        return f"{self.section}: {self.label}" if self.section else self.label

    @property
    def missing(self) -> list[int]:
        """Seeds without a run that came to its end."""
        return [seed for seed in self.seeds if seed not in self.runs]

    def goes_on(self, seed: int) -> bool:
        """Whether a seed has an unfinished run that a training can resume."""
        return seed in self.cut and self.cut[seed].goes_on()

    def holder(self, seed: int) -> str | None:
        """Description of the process that trains a seed now, or None."""
        return self.cut[seed].holder() if seed in self.cut else None

    def take(self, runs: list[Run]) -> tuple[list[Run], list[Run]]:
        """Choose the runs of this row among all runs.

        Returns:
            The finished runs of this row and the unfinished ones, each from oldest to newest.
        """
        settings = wanted(self.config, self.words)
        fitting = [
            run
            for run in sorted(runs, key=lambda run: run.started)
            if run.seed in self.seeds and not differences(settings, run.settings)
        ]
        whole = [run for run in fitting if run.results is not None]
        cut = [run for run in fitting if run.results is None]
        self.runs = {run.seed: run for run in whole}  # the newest run of a seed replaces others
        chosen = sorted(cut, key=lambda run: run.holder() is not None)
        self.cut = {run.seed: run for run in chosen if run.seed not in self.runs}
        return whole, cut

    def job(self, seed: int) -> list[str]:
        """Arguments of `python train.py` that train one seed, or resume its unfinished run."""
        words = [*self.words, *self._alike(seed), f"seed={seed}"]
        if self.goes_on(seed):
            words.append(f"hydra.run.dir={override(shown(self.cut[seed].folder))}")
        return words

    def _alike(self, seed: int) -> list[str]:
        """Overrides for settings that must be equal within a row, if its runs have other values."""
        like = next(iter(self.runs.values()), self.cut.get(seed))
        if like is None:
            return []
        settings = leaves(self.config)
        return [
            f"{name}={like.settings[name]}"
            for name in SAME
            if like.settings.get(name, settings.get(name)) != settings.get(name)
        ]

    def commands(self, outputs: Path) -> list[str]:
        """Commands for the missing seeds that no process trains; one command starts all new runs.

        Args:
            outputs: Folder of the runs.
        """
        idle = [seed for seed in self.missing if not self.holder(seed)]
        going_on = [seed for seed in idle if self.goes_on(seed)]
        anew = [seed for seed in idle if seed not in going_on]
        jobs = [self.job(seed) for seed in going_on]
        if anew:
            several = len(anew) > 1
            words = [*self.words, *self._alike(anew[0]), f"seed={','.join(map(str, anew))}"]
            if outputs != OUTPUTS:
                words.append(f"hydra.{'sweep' if several else 'run'}.dir={new_run_dir(outputs)}")
            jobs.insert(0, ["-m"] * several + words)
        program = "python train.py" if Path("train.py").exists() else "saformer-train"
        return [f"{program} {shell(words)}" for words in jobs]

    def cell(self, column: Column) -> Cell:
        """Values of a column from the runs of this row."""
        read = {seed: column.read(run.results or {}) for seed, run in sorted(self.runs.items())}
        values = {seed: value for seed, value in read.items() if value is not None}
        convention = None
        if column.convention and values:  # take it from any run, because all have the same
            convention = str(self.runs[next(iter(values))].config["energy"]["convention"])
        return Cell(values, convention)


@dataclass(frozen=True)
class Table:
    """A table with its numbers.

    Args:
        name: Name of its file.
        title: Caption.
        columns: Columns by name.
        rows: All rows; the rows of a section are consecutive.
        remarks: One line for each problem found in the run folders.
        outputs: Folder of the runs.
    """

    name: str
    title: str
    columns: dict[str, Column]
    rows: list[Row]
    remarks: list[str]
    outputs: Path = OUTPUTS

    def sections(self) -> list[tuple[str, list[Row]]]:
        """The rows under their headings."""
        by_section: dict[str, list[Row]] = {}
        for row in self.rows:
            by_section.setdefault(row.section, []).append(row)
        return list(by_section.items())


def new_run_dir(outputs: Path) -> str:
    """Value of `hydra.run.dir`, quoted for Hydra, for runs below another folder than outputs/."""
    return override(shown(outputs) + "/${name}/${run_id:}")


def fill(
    name: str, config: TableConfig, rows: list[Row], runs: list[Run], outputs: Path = OUTPUTS
) -> Table:
    """Give each row its runs.

    Args:
        name: Name of the table's file.
        config: Settings of the table.
        rows: Rows without runs.
        runs: All runs.
        outputs: Folder of the runs.

    Raises:
        SettingError: Runs of one row differ in a setting, so that their mean has no meaning.
    """
    columns = {key: column(key) for key in config.columns}
    remarks = []
    taken: set[Path] = set()
    asked = [wanted(row.config, row.words) for row in rows]
    for row in rows:
        whole, cut = row.take(runs)
        taken |= {run.folder for run in whole + cut}
        _require_alike(row, whole)
        remarks += _doubled(row, whole)
        remarks += [_unfinished(row, run) for run in cut]
    remarks += _near(rows, asked, [run for run in runs if run.folder not in taken])
    return Table(name, config.title, columns, rows, remarks, outputs)


def _require_alike(row: Row, runs: list[Run]) -> None:
    """Refuse to average runs whose numbers are not comparable."""
    for run in runs[1:]:
        first, other = runs[0].settings, run.settings
        differing = [
            f"{name}={first.get(name)} and {name}={other.get(name)}"
            for name in (*SAME, "effective_batch")
            if first.get(name) != other.get(name)
        ]
        if differing:
            typed = " ".join(pair.partition(" and ")[0] for pair in differing)
            raise SettingError(
                f"{shown(runs[0].folder)} and {shown(run.folder)} are both '{row.name}' but "
                f"differ: {'; '.join(differing)}. Choose one: add {typed}, or move the other away"
            )


def _doubled(row: Row, whole: list[Run]) -> list[str]:
    """Say which run is used if a seed has several finished runs."""
    lines = []
    for seed, newest in row.runs.items():
        older = [shown(run.folder) for run in whole if run.seed == seed and run is not newest]
        if older:
            lines.append(
                f"{row.name}, seed {seed} was run {len(older) + 1} times with equal settings: the "
                f"newest, {shown(newest.folder)}, is taken, and not {', '.join(older[:3])}"
                f"{' ...' if len(older) > 3 else ''}"
            )
    return lines


def _unfinished(row: Row, run: Run) -> str:
    """Say why a run without results is not counted."""
    if who := run.holder():
        why = f"is being trained by {who}"
    else:
        why = "has no results: it was cut off, or still runs"
    return (
        f"not counted: {shown(run.folder)} ({row.name}, seed {run.seed}) {why}; "
        f"{run.epochs_done()} of {run.config['epochs']} epochs"
    )


def _near(rows: list[Row], asked: list[dict[str, Any]], runs: list[Run]) -> list[str]:
    """Report runs that differ from a row in few settings: one line per row, for its nearest run."""
    by_row: dict[int, list[tuple[int, Run]]] = {}
    for run in runs:
        if not rows or run.results is None:
            continue
        apart = [len(differences(settings, run.settings)) for settings in asked]
        nearest = min(range(len(rows)), key=lambda i: (apart[i], run.seed not in rows[i].seeds))
        if 0 < apart[nearest] <= NEAR and run.seed in rows[nearest].seeds:
            by_row.setdefault(nearest, []).append((apart[nearest], run))
    lines = []
    for index, near in sorted(by_row.items()):
        _, run = min(near, key=lambda pair: pair[0])
        unlike = differences(asked[index], run.settings)
        said = ", ".join(f"{name}={has}, not {should}" for name, (should, has) in unlike.items())
        more = f" (and {len(near) - 1} more such runs)" if len(near) > 1 else ""
        lines.append(
            f"not counted: {shown(run.folder)} is not {rows[index].name}, seed {run.seed}: {said}"
            f"{more}"
        )
    return lines
