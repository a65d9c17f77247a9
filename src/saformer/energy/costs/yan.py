"""A quantised twin of equal capacity, and the movement of spikes."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isinf

from saformer.energy.conventions import Row
from saformer.energy.costs.base import CostModel, Item, lif
from saformer.energy.table import Kind, Values


@dataclass(frozen=True, kw_only=True)
class Yan2024Twin(CostModel):
    """Twin with activations of b = ceil(log2(T + 1)) bits, after Yan et al. (arXiv 2409.08290).

        E_SNN = S (E_ACC + e_w) + moves h e_sparse + T N (E_CMP + 2 e_state) + theta_out E_SUB
        E_QNN = (1 - g) M (E_MAC + e_w) + moves b h e_dense + N E_CMP

    S synaptic operations, M dense MACs of one step, N neurons, theta_out output spikes, h hops,
    g the share of the twin's activations that are zero. We derived the equations again from notes
    on the paper, and did not read the paper. An input moves once for every `reuse` operations that
    it takes part in. The paper adds up neuron by neuron, so its reuse is one; with `reuse=inf`,
    each input moves once for the whole layer.

    Constants: 22 nm. Accumulate, compare and subtract cost the same. Moving an event costs 3.0
    pJ/bit/hop (Loihi's routing), moving a dense word 0.25. We do not have the synthesised values,
    so we use E_MAC = b E_ACC, the sum of b partial products. We have no values for accesses to
    weights and membranes either; they cost zero by default. At T = 5 the paper's network wins below
    a rate of 5.7 %, ours below 5.2 %.

    The twin is exact for neurons without leak and with reset by subtraction; we do not price the
    leak. We leave out control, residual additions, and sums and masks of the twin's attention.
    """

    name: str = "yan2024_twin"
    technology: str = "22 nm"
    acc: float = 0.05448
    """An accumulate, compare or subtract, in pJ."""
    sparse: float = 3.0
    """Movement of an event, in pJ per bit and hop."""
    dense: float = 0.25
    """Movement of a word, in pJ per bit and hop."""
    hops: float = 4.75
    """Hops of a movement: 4.75 for a transformer on Allspark, 0.64 for VGG on a mesh."""
    reuse: float = 1.0
    """Operations that one movement serves."""
    sparsity: float = 0.0
    """Share g of the twin's activations that are zero."""
    weight_bits: int = 4
    """Bits of a weight, the same in both networks."""
    weight_bit: float = 0.0
    """Access to a weight, in pJ per bit and operation (20.3: DRAM)."""
    state: float = 0.0
    """Read or write of a membrane, in pJ."""

    def twin(self, T: int) -> str:
        return f"{bits(T)}-bit QNN"

    def priced(self, row: Row, T: int) -> Iterator[Item]:
        if row.kind is Kind.neuron:
            yield from lif(row, update=self.acc, spike=self.acc)
            yield Item(row, "state", 2 * row.inputs * self.state, False)
        elif row.macs:
            yield Item(row, "macs", row.macs * bits(T) * self.acc, row.event)
            yield Item(row, "weights", row.macs * self._weight, row.event)
            moved = self._moves(row.macs, row.inputs) * bits(T) * self.hops * self.dense
            yield Item(row, "movement", moved, row.event and not isinf(self.reuse))
        elif row.acs:
            yield Item(row, "acs", row.acs * self.acc, True)
            if row.kind is not Kind.sum:
                yield Item(row, "weights", row.acs * self._weight, True)
            moved = self._moves(row.acs, row.spikes) * self.hops * self.sparse
            yield Item(row, "movement", moved, True)

    def ann_pJ(self, row: Row, T: int) -> float:
        if row.kind is Kind.neuron:
            return row.inputs / row.steps * self.acc
        if not row.dense:
            return 0.0
        # We do not know the zeros among pixels, so both networks compute the first layer alike.
        active = 1.0 if row.layer.values is Values.real else 1 - self.sparsity
        compute = active * row.dense * (bits(T) * self.acc + self._weight)
        moves = self._moves(row.dense, row.inputs / row.steps)
        return compute + moves * bits(T) * self.hops * self.dense

    @property
    def _weight(self) -> float:
        return self.weight_bits * self.weight_bit

    def _moves(self, operations: float, inputs: float) -> float:
        return inputs if isinf(self.reuse) else operations / self.reuse


def bits(T: int) -> int:
    """Bits that an activation needs to hold the spike count of T timesteps, ceil(log2(T + 1))."""
    return T.bit_length()
