"""Published figures from published.yaml, each with its source and how we know it."""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from saformer.errors import SettingError
from saformer.results.settings import read_settings
from saformer.suggest import suggest

PATH = Path(__file__).with_name("published.yaml")


class Provenance(str, Enum):
    """How we know a figure."""

    paper = "paper"
    readme = "readme"
    log = "log"
    recalled = "recalled"


MEANING = {
    Provenance.paper: "read in the paper",
    Provenance.readme: "README of a repository",
    Provenance.log: "training log of the authors",
    Provenance.recalled: "recalled, to be confirmed",
}


@dataclass(kw_only=True)
class Figure:
    """Figures of one source for one method on one dataset; null if the source gives none."""

    method: str
    """Name with which rows of tables refer to it."""
    dataset: str
    """Name of the dataset, as in conf/dataset/."""
    timesteps: int | None = None
    """T; null for any."""
    params_M: float | None = None
    """Parameters, millions."""
    top1: float | None = None
    """Accuracy, percent."""
    ops_G: float | None = None
    """Operations per image, 10^9, as the source counts them."""
    energy_mJ: float | None = None
    """Energy per image, as the source counts it."""

    @property
    def empty(self) -> bool:
        """Whether it says nothing but names."""
        return all(v is None for v in (self.params_M, self.top1, self.ops_G, self.energy_mJ))


@dataclass(kw_only=True)
class Source:
    """One source of figures."""

    source: str
    """Name of the paper or repository."""
    provenance: Provenance
    """How we know its figures."""
    note: str = ""
    """What a reader must know about these figures."""
    figures: list[Figure] = field(default_factory=list)
    """The figures of the source."""

    def cite(self) -> str:
        """The source in one line."""
        note = f". {self.note}" if self.note else ""
        return f"{self.source} ({MEANING[self.provenance]}){note}"


@dataclass(kw_only=True)
class Published:
    """All published figures that we know."""

    sources: list[Source] = field(default_factory=list)

    def of(self, method: str, dataset: str, timesteps: int) -> list[tuple[Figure, Source]]:
        """Published figures of a method on a dataset at T timesteps.

        Raises:
            SettingError: published.yaml does not contain the method.
        """
        methods = {figure.method for source in self.sources for figure in source.figures}
        if method not in methods:
            raise SettingError(f"{PATH} has no method '{method}'.{suggest(method, methods)}")
        return [
            (figure, source)
            for source in self.sources
            for figure in source.figures
            if (figure.method, figure.dataset) == (method, dataset)
            and figure.timesteps in (None, timesteps)
        ]


def published() -> Published:
    """Read published.yaml.

    Raises:
        SettingError: The file has a mistake.
    """
    read = read_settings(PATH, Published)
    assert isinstance(read, Published)
    return read
