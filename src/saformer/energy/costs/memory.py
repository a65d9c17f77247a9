"""Arithmetic and a memory without any reuse."""

from collections.abc import Iterator
from dataclasses import dataclass

from saformer.energy.conventions import WEIGHTED, Row
from saformer.energy.costs.base import CostModel, Item, lif
from saformer.energy.costs.horowitz import FP32, Arithmetic, operations
from saformer.energy.table import Kind


@dataclass(frozen=True, kw_only=True)
class MemorySimple(CostModel):
    """One access for every operand, bias and membrane, after SpikingJelly 2.0's simple estimate.

        E_SNN = MACs (E_MAC + e) + ACs (E_AC + e) + T N e + 2 T N e
        E_ANN = M (E_MAC + e) + N e,     e = 24.96 pJ/byte x 4 bytes

    The terms of E_SNN are operations, biases and membranes, with N outputs of weight layers or
    neurons; M counts dense MACs of one step. Nothing is reused, so the crossover is near 1/T if
    there are many more operations than neurons. The source has no LIF update; we report it beside
    the total. A product of attention fetches its operand like a weight; a sum fetches none.
    Arithmetic: FP32, 45 nm (Horowitz, ISSCC 2014). 24.96 pJ/byte is the 3.12 pJ/bit of STEP (arXiv
    2505.11151); the text that we read does not state its technology node.
    """

    name: str = "memory_simple"
    technology: str = "45 nm"
    arithmetic: Arithmetic = FP32
    byte: float = 24.96
    """Access to memory, in pJ per byte."""

    def twin(self, T: int) -> str:
        return f"{self.arithmetic.name} ANN"

    def priced(self, row: Row, T: int) -> Iterator[Item]:
        yield from operations(row, self.arithmetic)
        if row.kind is Kind.neuron:
            yield Item(row, "state", 2 * row.inputs * self._access, False)
        elif row.dense:
            yield Item(row, "weights", (row.macs + row.acs) * self._access, row.event)
        if row.kind in WEIGHTED:
            yield Item(row, "biases", row.outputs * self._access, False)

    def ann_pJ(self, row: Row, T: int) -> float:
        biases = row.outputs / row.steps if row.kind in WEIGHTED else 0.0
        return row.dense * (self.arithmetic.mac + self._access) + biases * self._access

    def beside(self, row: Row) -> Iterator[Item]:
        if row.kind is Kind.neuron:
            yield from lif(row, update=self.arithmetic.lif, spike=self.arithmetic.add)

    @property
    def _access(self) -> float:
        return self.byte * self.arithmetic.bits / 8
