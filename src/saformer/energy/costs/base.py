"""The base of all hardware models: it adds up prices of layers, and finds the break-even rate.

The price of a layer has parts (operations, LIF update, state, movement ...). A part either follows
the spikes or is the same at any rate. With R the mean rate of the network, this gives

    E_SNN(r) = fixed + events r / R,     E_SNN(r*) = E_twin   ->   r* = R (E_twin - fixed) / events

Here all spikes scale together. r* is negative if the twin wins even over a silent network.

T timesteps, n samples. Energies are in pJ per image.
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import nan

import torch

from saformer.energy.conventions import Counted, Row

PJ_PER_MJ = 1e9


def millijoules(picojoules: float) -> float:
    """Picojoules in millijoules."""
    return picojoules / PJ_PER_MJ


@dataclass(frozen=True)
class Item:
    """One part of the energy of one layer."""

    row: Row
    """The layer under its convention."""
    part: str
    """What the energy is spent on."""
    pJ: float
    """Energy."""
    event: bool
    """Whether it is paid for each nonzero input; otherwise it is paid at any rate."""

    @property
    def follows_spikes(self) -> bool:
        """Whether it grows with the firing rate."""
        return self.event and self.row.layer.carries_spikes


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Estimated energy of an image under one convention and one hardware model."""

    name: str
    """Name of the model."""
    technology: str
    """Technology node of all its constants."""
    twin: str
    """The network that it is compared with: one of the same shape without spikes."""
    counted: Counted
    """The operations that were priced."""
    items: list[Item]
    """Parts of the total."""
    beside: list[Item]
    """Parts that the model leaves out of its total; they are reported beside it."""
    ann_pJ: float
    """Energy of the twin."""

    @property
    def snn_pJ(self) -> float:
        """Energy of the spiking network."""
        return sum(item.pJ for item in self.items)

    @property
    def parts(self) -> dict[str, float]:
        """The total energy of each part."""
        return _grouped((item.part, item.pJ) for item in self.items)

    @property
    def parts_beside(self) -> dict[str, float]:
        """The energy beside the total, by part."""
        return _grouped((item.part, item.pJ) for item in self.beside)

    @property
    def layers(self) -> dict[str, float]:
        """The total energy of each layer."""
        return _grouped((item.row.name, item.pJ) for item in self.items)

    @property
    def layers_beside(self) -> dict[str, float]:
        """The energy beside the total, by layer."""
        return _grouped((item.row.name, item.pJ) for item in self.beside)

    @property
    def ratio(self) -> float:
        """Energy of the spiking network over that of its twin; below one, the former wins."""
        return self.snn_pJ / self.ann_pJ if self.ann_pJ else nan

    @property
    def rate(self) -> float:
        """Mean input rate of the network, weighted by dense MACs."""
        return self.counted.rate

    @property
    def events_pJ(self) -> float:
        """The part of `snn_pJ` that follows the spikes."""
        return sum(item.pJ for item in self.items if item.follows_spikes)

    @property
    def crossover(self) -> float:
        """Mean rate r* below which the spiking network wins; not a number if nothing fires."""
        events = self.events_pJ
        fixed = self.snn_pJ - events
        return self.rate * (self.ann_pJ - fixed) / events if events else nan

    def ratio_at(self, rate: float) -> float:
        """`ratio` if the network fired at another mean rate; not a number if nothing fires."""
        if not self.rate or not self.ann_pJ:
            return nan
        events = self.events_pJ
        return (self.snn_pJ - events + events * rate / self.rate) / self.ann_pJ

    @property
    def se_pJ(self) -> float:
        """Standard error of the total over the samples, s/sqrt(n); not a number for n = 1.

        It uses the totals of the samples, because the layers of a sample rise and fall together. A
        charge that is equal for all samples adds nothing. Output spikes of neurons add nothing
        either, because they are not counted for each sample. There is no finite-population
        correction, because the samples stand for images beyond the set they were drawn from.
        """
        n = self.counted.samples
        if n < 2:
            return nan
        totals = torch.zeros(n, dtype=torch.float64)
        for item in self.items:
            share = item.row.of_sample
            if item.event and share.numel():
                totals += item.pJ * share
        return float(totals.std() / n**0.5)


@dataclass(frozen=True, kw_only=True)
class CostModel(ABC):
    """A hardware model: constants, and the price of a layer in the network and in its twin."""

    name: str
    """Name that every result carries."""
    technology: str
    """Technology node of all its constants."""

    def cost(self, counted: Counted) -> Cost:
        """Price a network under a convention."""
        T = counted.timesteps
        return Cost(
            name=self.name,
            technology=self.technology,
            twin=self.twin(T),
            counted=counted,
            items=[item for row in counted.rows for item in self.priced(row, T)],
            beside=[item for row in counted.rows for item in self.beside(row)],
            ann_pJ=sum(self.ann_pJ(row, T) for row in counted.rows),
        )

    @abstractmethod
    def twin(self, T: int) -> str:
        """Name the twin of a network with T timesteps."""

    @abstractmethod
    def priced(self, row: Row, T: int) -> Iterator[Item]:
        """Parts of the energy of a layer, over all T timesteps."""

    @abstractmethod
    def ann_pJ(self, row: Row, T: int) -> float:
        """Energy of the same layer in the twin."""

    def beside(self, row: Row) -> Iterator[Item]:
        """Parts that are reported beside the total, but not added to it."""
        return iter(())


def lif(row: Row, update: float, spike: float) -> Iterator[Item]:
    """Energy of a neuron layer: of each update, and of each output spike (its reset)."""
    yield Item(row, "lif", row.inputs * update, False)
    yield Item(row, "lif", row.spikes * spike, True)


def _grouped(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    for key, value in pairs:
        total[key] += value
    return dict(total)
