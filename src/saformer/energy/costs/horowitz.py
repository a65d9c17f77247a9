"""Arithmetic in 45 nm, with the constants that most papers of the field use."""

from collections.abc import Iterator
from dataclasses import dataclass

from saformer.energy.conventions import Row
from saformer.energy.costs.base import CostModel, Item, lif
from saformer.energy.table import Kind


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """Energy of an addition and of a multiplication in 45 nm, in pJ.

    Source: M. Horowitz, "Computing's energy problem", ISSCC 2014.
    """

    name: str
    bits: int
    add: float
    mul: float

    @property
    def mac(self) -> float:
        """A multiply-accumulate."""
        return self.mul + self.add

    @property
    def lif(self) -> float:
        """One LIF update: leak (a multiplication), integrate and compare (an addition each)."""
        return self.mul + 2 * self.add


FP32 = Arithmetic(name="FP32", bits=32, add=0.9, mul=3.7)
FP16 = Arithmetic(name="FP16", bits=16, add=0.4, mul=1.1)
INT8 = Arithmetic(name="INT8", bits=8, add=0.03, mul=0.2)
INT32 = Arithmetic(name="INT32", bits=32, add=0.1, mul=3.1)


@dataclass(frozen=True, kw_only=True)
class Horowitz45(CostModel):
    """Energy of the arithmetic of synaptic operations, and of nothing else.

        E_SNN = E_MAC MACs + E_AC ACs,     E_ANN = E_MAC M

    M is the number of dense MACs of one step. Beside the total it reports, for N neurons and theta
    output spikes,

        lif        T N (E_mul + 2 E_add) + theta E_add
        state      2 T N bits e_SRAM                     membranes read and written
        residual   E_add for every output of a residual addition

    If S = r T M, the crossover is at r = E_MAC(ANN) / (E_AC(SNN) T). Constants: Horowitz, ISSCC
    2014, 45 nm.
    """

    technology: str = "45 nm"
    snn: Arithmetic = FP32
    """Arithmetic of the spiking network."""
    ann: Arithmetic = FP32
    """Arithmetic of its twin."""
    sram_bit: float = 10 / 64
    """Access to a membrane, in pJ per bit: 10 pJ for 64 bits of an 8 kB cache."""

    def twin(self, T: int) -> str:
        return f"{self.ann.name} ANN"

    def priced(self, row: Row, T: int) -> Iterator[Item]:
        return operations(row, self.snn)

    def ann_pJ(self, row: Row, T: int) -> float:
        return self.ann.mac * row.dense

    def beside(self, row: Row) -> Iterator[Item]:
        if row.kind is Kind.neuron:
            yield from lif(row, update=self.snn.lif, spike=self.snn.add)
            yield Item(row, "state", 2 * row.inputs * self.snn.bits * self.sram_bit, False)
        elif row.kind is Kind.add:
            yield Item(row, "residual", row.outputs * self.snn.add, False)


def operations(row: Row, arithmetic: Arithmetic) -> Iterator[Item]:
    """Energy of the synaptic operations of a layer."""
    if row.macs:
        yield Item(row, "macs", row.macs * arithmetic.mac, row.event)
    if row.acs:
        yield Item(row, "acs", row.acs * arithmetic.add, True)
