"""Published figures of the networks in a table, as points of accuracy against energy."""

from dataclasses import dataclass

from saformer.results.tables import Table


@dataclass(frozen=True)
class Peer:
    """A published accuracy, with the published energy of the same network if there is one.

    Args:
        method: Name in published.yaml.
        accuracy: In percent.
        energy: In mJ per image, as its source counts it.
        sources: Numbers of the sources; two numbers if accuracy and energy have different sources.
    """

    method: str
    accuracy: float
    energy: float | None
    sources: tuple[int, ...]

    def text(self) -> str:
        """Its name with the numbers of the sources."""
        return f"{self.method} [{', '.join(map(str, self.sources))}]"


def peers(table: Table, dataset: str, cited: dict[str, int]) -> list[Peer]:
    """Published figures for the rows of a dataset.

    If a source gives only an energy, its accuracy is taken from another source of the same method.

    Args:
        table: The table.
        dataset: Name of the dataset.
        cited: Number of each source by its citation; new sources are added.
    """
    found: list[Peer] = []
    for row in table.rows:
        if row.config["dataset"]["name"] != dataset:
            continue
        said = [
            (figure, cited.setdefault(source.cite(), len(cited) + 1))
            for figure, source in row.published
            if figure.top1 is not None or figure.energy_mJ is not None
        ]
        accuracies = [(f.top1, number) for f, number in said if f.top1 is not None]
        used = set()
        for figure, number in said:
            if figure.energy_mJ is None or not accuracies:
                continue
            complete = figure.top1 is not None
            top1, first = (figure.top1, number) if complete else accuracies[0]
            assert top1 is not None
            sources = (number,) if complete else (first, number)
            used |= set(sources)
            found.append(Peer(figure.method, top1, figure.energy_mJ, sources))
        found += [
            Peer(figure.method, figure.top1, None, (number,))
            for figure, number in said
            if figure.top1 is not None and number not in used
        ]
    return list(dict.fromkeys(found))  # without duplicates: several rows may name one method
