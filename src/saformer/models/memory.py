"""How spikes are kept for the backward pass: each as a bit or a byte instead of a float.

A layer keeps its input for the gradient of its weights. While the network runs forward, this module
knows which storages hold spikes, by who made them and not by looking at values, and packs each
once, however many layers keep it. Sums and products of spikes are counts; they are packed as bytes
where they cannot exceed one. The backward pass unpacks, to the same values in the same layout.
"""

import functools
import math
from collections.abc import Iterator
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
from saformer.models.settings import SpikeStore
from saformer.models.spike_ops import ResidualAdd, SpikeMask, SpikeMatMul, SpikeMax

LARGEST = 255  # of a byte


@dataclass(frozen=True)
class Packed:
    """Counts of 0 to 255, or of 0 and 1, without their layout."""

    data: Tensor
    """A byte each, or eight of them in a byte [n] uint8."""
    bits: bool
    """Whether it is eight."""
    count: int
    """How many they are."""
    dtype: torch.dtype
    """What they were."""

    def unpack(self) -> Tensor:
        """[count] in the dtype they had."""
        if not self.bits:
            return self.data.to(self.dtype)
        table = _bytes_as_bits(self.dtype, self.data.device)
        return F.embedding(self.data.to(torch.int32), table).flatten()[: self.count]


def pack(x: Tensor, bits: bool) -> Packed:
    """Pack counts [n] of any floating dtype.

    Args:
        x: Whole numbers of 0 to 255, with `bits` 0 and 1.
        bits: Eight of them in a byte, instead of one.
    """
    if not bits:
        return Packed(x.to(torch.uint8), bits, len(x), x.dtype)
    eights = F.pad(x, (0, -len(x) % 8)) if len(x) % 8 else x
    # A product of matrices is one pass over memory. Sums of up to 255 are exact in any dtype.
    data = (eights.view(-1, 8) @ _powers(x.dtype, x.device)).to(torch.uint8)
    return Packed(data, bits, len(x), x.dtype)


@functools.cache
def _powers(dtype: torch.dtype, device: torch.device) -> Tensor:
    return (1 << torch.arange(8, device=device)).to(dtype)


@functools.cache
def _bytes_as_bits(dtype: torch.dtype, device: torch.device) -> Tensor:
    """The bits of every byte, lowest first [256, 8]."""
    every = torch.arange(256, device=device)[:, None]
    return (every >> torch.arange(8, device=device) & 1).to(dtype)


@dataclass
class _Counts:
    """A storage that holds counts."""

    alive: StorageWeakRef  # while it is held, no other storage is given the same key
    largest: int
    packed: Packed | None = None


@dataclass(frozen=True)
class _View:
    """A tensor whose storage is packed."""

    packed: Packed
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


class SpikeKeeper:
    """Packs the spikes that a network keeps for its backward pass.

    Args:
        network: Where to look for spikes: neurons, and what passes spikes on or counts them.
        store: As bits or as bytes; counts above one are bytes in either.
    """

    def __init__(self, network: nn.Module, store: SpikeStore) -> None:
        self._bits = store is SpikeStore.bit
        self._known: dict[int, _Counts] | None = None  # of the forward pass that is under way
        for module in network.modules():
            if isinstance(module, MultiStepLeaky):
                module.register_forward_hook(self._fired)
            elif isinstance(module, MaxPool | SpikeMax | SpikeMask):
                module.register_forward_hook(self._passed_on)
            elif isinstance(module, ResidualAdd):
                module.register_forward_hook(self._added)
            elif isinstance(module, SpikeMatMul):
                module.register_forward_pre_hook(self._fold)
                module.register_forward_hook(self._multiplied)

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Pack what the forward pass inside keeps."""
        self._known = {}
        try:
            with saved_tensors_hooks(self._pack, _unpack):
                yield
        finally:
            self._known = None

    def _pack(self, x: Tensor) -> Tensor | _View:
        found = self._find(x)
        if found is None:
            return x.detach()  # not x itself, which may own the node that is going to own it
        if found.packed is None:
            whole = x.as_strided((_numel_of_storage(x),), (1,), 0)
            found.packed = pack(whole, self._bits and found.largest == 1)
        return _View(found.packed, x.size(), x.stride(), int(x.storage_offset()))

    def _find(self, x: Tensor) -> _Counts | None:
        return None if self._known is None else self._known.get(_key(x))

    def _largest(self, args: tuple[Any, ...]) -> list[int] | None:
        """The largest value that each tensor can hold, if all hold counts."""
        found = [self._find(x) for x in args if isinstance(x, Tensor)]
        known = [counts.largest for counts in found if counts is not None]
        return known if len(known) == len(found) else None

    def _note(self, x: Tensor, largest: int) -> None:
        """A tensor holds counts, and nothing else is in its storage."""
        if self._known is not None and largest <= LARGEST and x.numel() == _numel_of_storage(x):
            self._known[_key(x)] = _Counts(StorageWeakRef(x.untyped_storage()), largest)

    def _fired(self, module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
        self._note(out, 1)

    def _passed_on(self, module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
        if (largest := self._largest(args)) is not None:
            self._note(out, math.prod(largest))

    def _added(self, module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
        if (largest := self._largest(args)) is not None:
            self._note(out, sum(largest))

    def _multiplied(self, module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
        if (largest := self._largest(args)) is not None:
            self._note(out, math.prod(largest) * args[0].shape[-1])

    def _fold(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Make the copies that a product makes of matrices in this layout, and note them."""
        return tuple(self._folded(x) for x in args)

    def _folded(self, x: Tensor) -> Tensor:
        counts = self._find(x)
        if counts is None:
            return x
        folded = x.reshape(-1, *x.shape[-2:]).view(x.shape)
        if _key(folded) != _key(x):
            self._note(folded, counts.largest)
        return folded


def _unpack(kept: Tensor | _View) -> Tensor:
    if isinstance(kept, Tensor):
        return kept
    return kept.packed.unpack().as_strided(kept.size, kept.stride, kept.offset)


def _key(x: Tensor) -> int:
    address: int = x.untyped_storage()._cdata
    return address


def _numel_of_storage(x: Tensor) -> int:
    return x.untyped_storage().nbytes() // x.element_size()
