"""Published figures, each with its source and how it is known: published.yaml."""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from saformer.errors import SettingError
from saformer.results.settings import read_settings
from saformer.suggest import suggest

PATH = Path(__file__).with_name("published.yaml")


class Provenance(str, Enum):
    """How a figure is known."""

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
    """What one source says of one method on one dataset; null for what it does not say."""

    method: str
    """Name by which rows of tables ask for it."""
    dataset: str
    """Name of the dataset, as in conf/dataset/."""
    timesteps: int | None = None
    """T; null stands for any."""
    params_M: float | None = None
    """Parameters, millions."""
    top1: float | None = None
    """Accuracy, percent."""
    ops_G: float | None = None
    """Operations of an image, 10^9, as the source counts them."""
    energy_mJ: float | None = None
    """Energy of an image, as the source counts it."""

    @property
    def empty(self) -> bool:
        """Whether it says nothing but names."""
        return all(v is None for v in (self.params_M, self.top1, self.ops_G, self.energy_mJ))


@dataclass(kw_only=True)
class Source:
    """One place where figures stand."""

    source: str
    """Name of the paper or repository."""
    provenance: Provenance
    """How its figures are known here."""
    note: str = ""
    """What must be known to read them."""
    figures: list[Figure] = field(default_factory=list)
    """What it says."""

    def cite(self) -> str:
        """The source in one line."""
        note = f". {self.note}" if self.note else ""
        return f"{self.source} ({MEANING[self.provenance]}){note}"


@dataclass(kw_only=True)
class Published:
    """All that is known."""

    sources: list[Source] = field(default_factory=list)

    def of(self, method: str, dataset: str, timesteps: int) -> list[tuple[Figure, Source]]:
        """What is published of a method on a dataset at T timesteps.

        Raises:
            SettingError: Nothing at all is known of such a method.
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
    """What published.yaml says.

    Raises:
        SettingError: The file was filled in wrongly.
    """
    read = read_settings(PATH, Published)
    assert isinstance(read, Published)
    return read
