"""What is published of the networks in a table, as points of accuracy over energy."""

from dataclasses import dataclass

from saformer.results.tables import Table


@dataclass(frozen=True)
class Peer:
    """A published accuracy, with an energy if one is published of the same network.

    Args:
        method: Name in published.yaml.
        accuracy: In percent.
        energy: In mJ an image, as its source counts it.
        sources: Their numbers: of both figures if they stand in two places.
    """

    method: str
    accuracy: float
    energy: float | None
    sources: tuple[int, ...]

    def text(self) -> str:
        """Its name with the numbers of the sources."""
        return f"{self.method} [{', '.join(map(str, self.sources))}]"


def peers(table: Table, dataset: str, cited: dict[str, int]) -> list[Peer]:
    """What is published for the rows of a dataset.

    A source that gives an energy alone speaks of a network whose accuracy another source gives.

    Args:
        table: The table.
        dataset: Its name.
        cited: Number of each source by what is cited; new ones are added.
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
            own = figure.top1 is not None
            top1, first = (figure.top1, number) if own else accuracies[0]
            assert top1 is not None
            sources = (number,) if own else (first, number)
            used |= set(sources)
            found.append(Peer(figure.method, top1, figure.energy_mJ, sources))
        found += [
            Peer(figure.method, figure.top1, None, (number,))
            for figure, number in said
            if figure.top1 is not None and number not in used
        ]
    return list(dict.fromkeys(found))  # several rows may ask for one method
