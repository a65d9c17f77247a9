"""Keep spikes for the backward pass as bits instead of floats.

A layer keeps its input for the gradient of its weights. During the forward pass, this module tracks
which storages hold spikes. It knows that from the module that made a tensor; it does not look at
values. It packs each storage once, even if several layers keep it. Sums and products of spikes are
counts, which it packs as bytes. The backward pass unpacks the same values in the same layout.

It tracks only outputs of the package's own classes, because a subclass or an earlier hook may turn
spikes into other values. It drops a storage that is written in place afterwards.
"""

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

from saformer.models.layers import MaxPool
from saformer.models.neuron import MultiStepLeaky
from saformer.models.spike_ops import ResidualAdd, SpikeMask, SpikeMatMul, SpikeMax

LARGEST = 255  # largest count that fits into a byte

# Modules that pass counts on or add them: number of operands, and the largest count of the result.
COUNTING: dict[type[nn.Module], tuple[int, Callable[[list[int]], int]]] = {
    MaxPool: (1, max),
    SpikeMax: (1, max),
    SpikeMask: (2, math.prod),
    ResidualAdd: (2, sum),
    SpikeMatMul: (2, math.prod),  # for one pair of elements
}


@dataclass(frozen=True)
class Packed:
    """A flat list of counts from 0 to 255, or of zeros and ones."""

    data: Tensor
    """Bytes [n] uint8 with one count each, or with eight zeros and ones each."""
    bits: bool
    """Whether each byte holds eight values."""
    count: int
    """Number of values."""
    dtype: torch.dtype
    """Dtype of the values before packing."""

    def unpack(self) -> Tensor:
        """Give back the values [count] in their original dtype."""
        if not self.bits:
            return self.data.to(self.dtype)
        table = _bytes_as_bits(self.dtype, self.data.device)
        return F.embedding(self.data.to(torch.int32), table).flatten()[: self.count]


def pack(x: Tensor, bits: bool) -> Packed:
    """Pack counts [n] of any floating dtype.

    Args:
        x: Whole numbers from 0 to 255; with `bits` only zeros and ones.
        bits: Pack eight values into a byte, instead of one.
    """
    if not bits:
        return Packed(x.to(torch.uint8), bits, len(x), x.dtype)
    eights = F.pad(x, (0, -len(x) % 8)) if len(x) % 8 else x
    # A matrix product takes one pass over memory. Sums of up to 255 are exact in any dtype.
    data = (eights.view(-1, 8) @ _powers(x.dtype, x.device)).to(torch.uint8)
    return Packed(data, bits, len(x), x.dtype)


@functools.cache
def _powers(dtype: torch.dtype, device: torch.device) -> Tensor:
    return (1 << torch.arange(8, device=device)).to(dtype)


@functools.cache
def _bytes_as_bits(dtype: torch.dtype, device: torch.device) -> Tensor:
    """The bits of every byte, lowest first [256, 8]."""
    numbers = torch.arange(256, device=device)[:, None]
    return (numbers >> torch.arange(8, device=device) & 1).to(dtype)


@dataclass
class _Counts:
    """A storage that holds counts."""

    alive: StorageWeakRef  # while we hold it, no other storage gets the same key
    version: int  # PyTorch raises it with every write in place
    largest: int
    packed: Packed | None = None


@dataclass(frozen=True)
class _View:
    """A tensor whose storage is packed."""

    packed: Packed
    size: torch.Size
    stride: tuple[int, ...]
    offset: int

    def unpack(self) -> Tensor:
        return self.packed.unpack().as_strided(self.size, self.stride, self.offset)


@dataclass(frozen=True)
class _Whole:
    """A tensor that is kept as it is."""

    data: Tensor
    version: int

    def unpack(self) -> Tensor:
        # PyTorch checks only tensors that it keeps itself, so we check ours.
        if self.data._version != self.version:
            raise RuntimeError(
                "a tensor needed for gradient computation has been modified by an inplace "
                f"operation: {list(self.data.shape)} {self.data.dtype}"
            )
        return self.data


class SpikeKeeper:
    """Packs the spikes that a network keeps for its backward pass.

    Args:
        network: Network whose neurons, and modules of the types in `COUNTING`, get hooks.
    """

    def __init__(self, network: nn.Module) -> None:
        self._known: dict[int, _Counts] | None = None  # counts of the current forward pass
        for module in network.modules():
            if type(module) is SpikeMatMul:
                module.register_forward_pre_hook(self._fold)
            if type(module) is MultiStepLeaky:
                module.register_forward_hook(self._fired)
            elif type(module) in COUNTING:
                module.register_forward_hook(self._counted)

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Pack the tensors that a forward pass inside this context keeps."""
        self._known = {}
        try:
            with saved_tensors_hooks(self._pack, _unpack):
                yield
        finally:
            self._known = None

    def _pack(self, x: Tensor) -> _Whole | _View:
        counts = self._find(x)
        if counts is None:
            # Keep no reference to x itself: x may own the graph node that will own this.
            return _Whole(x.detach(), x._version)
        if counts.packed is None:
            whole = x.as_strided((_numel_of_storage(x),), (1,), 0)
            counts.packed = pack(whole, counts.largest == 1)
        return _View(counts.packed, x.size(), x.stride(), int(x.storage_offset()))

    def _find(self, x: Tensor) -> _Counts | None:
        counts = None if self._known is None else self._known.get(_key(x))
        return counts if counts is not None and counts.version == x._version else None

    def _note(self, x: Tensor, largest: int) -> None:
        """Record that a tensor holds counts, if they fit into bytes and fill its whole storage."""
        if self._known is not None and largest <= LARGEST and x.numel() == _numel_of_storage(x):
            alive = StorageWeakRef(x.untyped_storage())
            self._known[_key(x)] = _Counts(alive, x._version, largest)

    def _fired(self, module: MultiStepLeaky, args: tuple[Any, ...], out: Tensor) -> None:
        if module.binary and self._is_first_to_see(module):
            self._note(out, 1)

    def _counted(self, module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
        operands, rule = COUNTING[type(module)]
        # Hooks do not see keyword arguments, so the counts of such operands are unknown.
        inputs = [self._find(x) if isinstance(x, Tensor) else None for x in args[:operands]]
        largest = [counts.largest for counts in inputs if counts is not None]
        if len(largest) == operands and self._is_first_to_see(module):
            terms = args[0].shape[-1] if isinstance(module, SpikeMatMul) else 1
            self._note(out, rule(largest) * terms)

    def _is_first_to_see(self, module: nn.Module) -> bool:
        """Whether our hook sees the output of the module's class before any other hook."""
        first_hook = next(iter(module._forward_hooks.values()))
        is_ours = getattr(first_hook, "__self__", None) is self
        global_hooks = torch.nn.modules.module._global_forward_hooks
        return is_ours and not global_hooks and "forward" not in vars(module)

    def _fold(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Make the copies that a matrix product would make of its operands, and record them."""
        return tuple(self._folded(x) for x in args)

    def _folded(self, x: Tensor) -> Tensor:
        counts = self._find(x)
        if counts is None:
            return x
        folded = x.reshape(-1, *x.shape[-2:]).view(x.shape)
        if _key(folded) != _key(x):
            self._note(folded, counts.largest)
        return folded


def _unpack(saved: _Whole | _View) -> Tensor:
    return saved.unpack()


def _key(x: Tensor) -> int:
    address: int = x.untyped_storage()._cdata
    return address


def _numel_of_storage(x: Tensor) -> int:
    return x.untyped_storage().nbytes() // x.element_size()
