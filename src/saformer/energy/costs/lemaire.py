"""Integer arithmetic, memories that are as large as their content, and addressing."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from saformer.energy.conventions import WEIGHTED, Row
from saformer.energy.costs.base import CostModel, Item, lif
from saformer.energy.costs.horowitz import INT32, Arithmetic
from saformer.energy.table import Kind


@dataclass(frozen=True, kw_only=True)
class Lemaire2022(CostModel):
    """Compute, memory and addressing, after Lemaire et al. 2022 (arXiv 2210.13107).

    e_in, e_out and e_par are the access energies of the memories that hold the input and the output
    of one step, and the weights. There are S synaptic operations, N outputs, M dense MACs of one
    step and theta input spikes. The cost of a layer that accumulates is

        acs          S E_add
        weights      (S + T N) e_par              T N: the bias, in every step
        state        2 (S + T N) e_out            membranes read and written
        spikes       theta e_in                   read; a neuron layer adds theta_out e_out, written
        addressing   2 theta E_MAC + S E_add
        lif          T N (E_MAC + E_add) + theta_out E_add     of a neuron layer

    The cost of a layer that multiplies, such as every layer of the twin, is

        M (E_MAC + e_in + e_par) + N (E_add + e_par + e_out) + (N_in + N) E_add.

    S is our exact count; the source has theta C_out ceil(k/s)^2, which ignores borders. We leave
    out C_out k^2 additions of addressing in the twin, which are below a thousandth of a percent.
    Our access energy depends on the capacity of the memory and is linear between the points; the
    published code looks it up by the number of accesses and restarts at zero after each point. We
    leave out attention, residual additions and pooling, because the source has no terms for them.
    Constants: INT32, 45 nm (Horowitz, ISSCC 2014).
    """

    name: str = "lemaire2022"
    technology: str = "45 nm"
    arithmetic: Arithmetic = INT32
    word: int = 4
    """Bytes of a value in memory."""
    sram: tuple[tuple[int, float], ...] = ((0, 0), (2**13, 10), (2**15, 20), (2**20, 100))
    """Capacities in bytes (8 kB, 32 kB, 1 MB), and the energy of one access in pJ."""

    def access(self, size: float) -> float:
        """Energy of an access to a memory of `size` bytes: linear between points, flat after."""
        for (low, start), (high, end) in pairwise(self.sram):
            if size <= high:
                return start + (end - start) * (size - low) / (high - low)
        return self.sram[-1][1]

    def twin(self, T: int) -> str:
        return f"{self.arithmetic.name} ANN"

    def priced(self, row: Row, T: int) -> Iterator[Item]:
        add, mac = self.arithmetic.add, self.arithmetic.mac
        e_in, e_out, e_par = self._accesses(row)
        if row.kind is Kind.neuron:
            yield from lif(row, update=mac + add, spike=add)
            yield Item(row, "spikes", row.spikes * e_in, True)
        elif row.kind in WEIGHTED and row.macs:
            yield Item(row, "macs", row.macs * mac, row.event)
            yield Item(row, "values", row.macs * e_in, row.event)
            yield Item(row, "weights", row.macs * e_par, row.event)
            yield Item(row, "biases", row.outputs * (add + e_par), False)
            yield Item(row, "values", row.outputs * e_out, False)
            yield Item(row, "addressing", (row.inputs + row.outputs) * add, False)
        elif row.kind in WEIGHTED:
            yield Item(row, "acs", row.acs * add, True)
            yield Item(row, "weights", row.acs * e_par, True)
            yield Item(row, "biases", row.outputs * e_par, False)
            yield Item(row, "state", 2 * row.acs * e_out, True)
            yield Item(row, "state", 2 * row.outputs * e_out, False)
            yield Item(row, "spikes", row.spikes * e_in, True)
            yield Item(row, "addressing", 2 * row.spikes * mac + row.acs * add, True)

    def ann_pJ(self, row: Row, T: int) -> float:
        if row.kind not in WEIGHTED:
            return 0.0
        add, mac = self.arithmetic.add, self.arithmetic.mac
        e_in, e_out, e_par = self._accesses(row)
        n_in, n_out = row.inputs / row.steps, row.outputs / row.steps
        per_output = add + e_par + e_out
        return row.dense * (mac + e_in + e_par) + n_out * per_output + (n_in + n_out) * add

    def _accesses(self, row: Row) -> tuple[float, float, float]:
        sizes = row.inputs / row.steps, row.outputs / row.steps, row.layer.weights
        e_in, e_out, e_par = (self.access(size * self.word) for size in sizes)
        return e_in, e_out, e_par
