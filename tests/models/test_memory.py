"""What is kept for the backward pass changes no result: spikes packed, neurons and blocks again."""

import copy
import dataclasses
import re
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from lively import images, lively
from mostly_slow import mostly_slow
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from saformer.errors import SettingError
from saformer.models import memory
from saformer.models.layers import MaxPool
from saformer.models.memory import pack
from saformer.models.neuron import MultiStepLeaky
from saformer.models.pooling import LeanMaxPool2d
from saformer.models.settings import MemoryConfig, Recompute, SpikeStore
from saformer.models.spike_ops import ResidualAdd
from saformer.models.transformer import SAFormer
from saformer.runs.identity import defining

PLAIN = MemoryConfig(spikes=SpikeStore.float)
OTHERS = [
    MemoryConfig(),  # bits, and nothing again
    MemoryConfig(spikes=SpikeStore.bit, recompute=Recompute.neurons),
    MemoryConfig(spikes=SpikeStore.float, recompute=Recompute.neurons),
    MemoryConfig(spikes=SpikeStore.bit, recompute=Recompute.blocks),
]
QKFORMER = ("model=qkformer_4_384", "model.dim=32", "model.num_heads=2", "dataset.image_size=32")
NETWORKS = [
    (),
    ("model.residual=sew",),
    ("model.dwc.place=series",),
    ("model.dwc.place=series", "model.residual=sew"),
    ("model.dwc.place=mlp", "timesteps=1"),
    ("model.dwc.place=none", "attention=ssa_bias", "model.residual=sew", "model.head_lif=false"),
    ("attention=ssa_kv_first",),
    ("attention=random",),
    ("attention=sdsa_erode", "model.dwc.place=none"),
    ("attention=dwconv", "model.dwc.place=none", "model.residual=sew"),
    ("attention=identity", "model.dwc.place=mlp"),
    ("attention.threshold=learnable", "attention.operator=max", "attention.aggregate=both"),
    ("model.stem=spikingformer",),
    ("neuron=plif",),
    ("neuron=if", "timesteps=1"),
    ("neuron=lif_soft", "model.residual=sew"),
    ("neuron=lif_snntorch",),
    ("neuron.detach_reset=false",),
    ("neuron.backend=loop", "timesteps=2"),
    ("ablation=rate_coding", "dataset.mean=[0]", "dataset.std=[1]"),
    (*QKFORMER, "attention=sasa", "timesteps=2"),
    (*QKFORMER, "attention.scale=1", "timesteps=1"),
]
each = pytest.mark.parametrize(
    "overrides", mostly_slow(NETWORKS, 2), ids=lambda o: " ".join(o) or "default"
)
some = pytest.mark.parametrize(
    "kept", OTHERS, ids=lambda m: f"{m.spikes.value}-{m.recompute.value}"
)


def side(overrides: tuple[str, ...]) -> int:
    return 32 if "dataset.image_size=32" in overrides else 8


@pytest.fixture
def network(backbone):
    """A network that spikes, with weights from seed 0 and what it keeps for the backward pass."""

    def call(kept: MemoryConfig, *overrides: str) -> SAFormer:
        model = backbone("model.dim=32", "model.num_heads=2", *overrides, memory=kept)
        return lively(model, side(overrides))

    return call


def trained(model: nn.Module, size: int = 8, precision: torch.dtype = torch.float32) -> dict:
    """All that two training steps leave: losses, gradients, weights, buffers, random numbers."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    torch.manual_seed(1)
    found: dict[str, Tensor] = {}
    for step in range(2):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision is torch.bfloat16):
            logits = model(images(4, size))
        loss = F.cross_entropy(logits.mean(0).float(), torch.arange(4))
        loss.backward()
        optimizer.step()
        found[f"{step} loss"] = loss.detach()
        found |= {f"{step} d {name}": p.grad for name, p in model.named_parameters()}
    return found | model.state_dict() | {"random": torch.get_rng_state()}


def require_same(found: dict, wanted: dict) -> None:
    assert found.keys() == wanted.keys()
    assert [name for name, value in wanted.items() if not torch.equal(found[name], value)] == []


@each
def test_nothing_kept_changes_a_result(network, overrides):
    """Losses, gradients, weights and statistics of two steps are the same to the last bit."""
    wanted = trained(network(PLAIN, *overrides), side(overrides))
    for kept in OTHERS:
        require_same(trained(network(kept, *overrides), side(overrides)), wanted)


@pytest.mark.parametrize("overrides", NETWORKS[:2], ids=lambda o: " ".join(o) or "default")
def test_nor_in_mixed_precision(network, overrides):
    """The same with bf16-mixed, where spikes are bf16."""
    wanted = trained(network(PLAIN, *overrides), precision=torch.bfloat16)
    for kept in OTHERS:
        require_same(trained(network(kept, *overrides), precision=torch.bfloat16), wanted)


@pytest.mark.slow
def test_nor_with_compiled_neurons(network):
    """The same where neurons run on compiled kernels."""
    wanted = trained(network(PLAIN, "neuron.backend=compile", "timesteps=2"))
    for kept in OTHERS:
        found = trained(network(kept, "neuron.backend=compile", "timesteps=2"))
        require_same(found, wanted)


class Alive(TorchDispatchMode):
    """Counts the bytes that a forward pass leaves behind, of all that it allocated."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else (out,):
            if isinstance(x, Tensor):
                storage = x.untyped_storage()
                self._made[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        return out

    def bytes(self) -> int:
        return sum(size for alive, size in self._made.values() if not alive.expired())


def kept_bytes(model: nn.Module, x: Tensor) -> int:
    model(x).sum().backward()  # fills what is cached
    with Alive() as alive:
        logits = model(x)
    found = alive.bytes()
    assert logits.requires_grad
    return found


# Share of the bytes that are kept with neither option, counted and rounded up.
SHARES = {
    (): {
        **{"float neurons": 0.8, "float blocks": 0.2, "bit none": 0.77},
        **{"bit neurons": 0.55, "bit blocks": 0.16},
    },
    ("attention=ssa_bias", "model.residual=sew", "model.dwc.place=none"): {
        **{"float neurons": 0.7, "float blocks": 0.16, "bit none": 0.77},
        **{"bit neurons": 0.45, "bit blocks": 0.12},
    },
}


@pytest.mark.parametrize("overrides", SHARES, ids=" ".join)
def test_less_is_kept(network, overrides):
    """Each option lets a forward pass leave fewer bytes behind, all of which are counted."""
    deep = (*overrides, "model.depth=3")
    all_of_it = kept_bytes(network(PLAIN, *deep), images())
    for kept, share in SHARES[overrides].items():
        spikes, again = kept.split()
        own = MemoryConfig(spikes=SpikeStore(spikes), recompute=Recompute(again))
        assert kept_bytes(network(own, *deep), images()) < share * all_of_it, kept


shapes = st.tuples(*[st.integers(1, 5)] * 4)
dtypes = st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16])


@given(st.integers(0, 70), dtypes, st.integers(0, 2**32))
def test_packing_is_exact(count, dtype, seed):
    """Bits give back zeros and ones, bytes 0 to 255, of every length and dtype."""
    generator = torch.Generator().manual_seed(seed)
    for bits, end in ((True, 2), (False, 256)):
        x = torch.randint(end, (count,), generator=generator).to(dtype)
        packed = pack(x, bits)
        assert packed.data.dtype is torch.uint8
        assert len(packed.data) == (-(-count // 8) if bits else count)
        assert packed.unpack().dtype is dtype
        assert torch.equal(packed.unpack(), x)


@given(shapes, dtypes, st.permutations(range(4)), st.data())
def test_a_kept_view_comes_back_as_it_was(shape, dtype, order, data):
    """Values and layout of what is saved of spikes: any part of them, strided in any way."""
    neuron = MultiStepLeaky(beta=0.5)
    keeper = memory.SpikeKeeper(neuron)
    with keeper.keeping():
        spikes = neuron(torch.randn(shape, dtype=dtype).permute(order))
        part = spikes
        for axis in range(4):
            first = data.draw(st.integers(0, part.shape[axis] - 1))
            part = part.narrow(axis, first, part.shape[axis] - first)
        held = keeper._pack(part)
        assert isinstance(keeper._pack(part.clone()), memory._Whole)
    back = memory._unpack(held)
    assert isinstance(held, memory._View)
    assert torch.equal(back, part)
    assert back.stride() == part.stride()


def test_membranes_and_large_counts_are_kept_as_they_are():
    """Sums are bytes while they fit; what could exceed 255, or shares a storage, is not packed."""
    add = ResidualAdd()
    keeper = memory.SpikeKeeper(add)
    with keeper.keeping():
        x, y = torch.full((16,), 127.0), torch.full((16,), 2.0)
        keeper._note(x, 127)
        keeper._note(y, 2)
        for counts in (x, add(x, x)):
            held = keeper._pack(counts)
            assert isinstance(held, memory._View)
            assert torch.equal(memory._unpack(held), counts)
        large = add(add(x, x), y)
        for unknown in (large, add(x, large), add(x, x + 0.5)):
            assert isinstance(keeper._pack(unknown), memory._Whole)
        part = torch.full((16,), 0.5)[:8].fill_(1)
        keeper._note(part, 1)
        assert isinstance(keeper._pack(part), memory._Whole)


@some
def test_a_copy_of_a_trained_network_is_one_of_its_own(network, kept):
    """A deep copy after a step trains as the original would, and keeps no more."""
    model = network(kept)
    trained(model)
    twin = copy.deepcopy(model)
    assert kept_bytes(copy.deepcopy(model), images()) == kept_bytes(copy.deepcopy(twin), images())
    require_same(trained(twin), trained(model))


@some
def test_evaluation_runs_once_and_keeps_nothing(network, kept):
    """Every module runs once in evaluation, with gradients as without, and nothing is packed."""
    plain, model = network(PLAIN).eval(), network(kept).eval()
    calls: list[str] = []
    for name, module in model.named_modules():
        if not list(module.children()):
            module.register_forward_hook(lambda *_, name=name: calls.append(name))
    x = images().requires_grad_()
    model(x).sum().backward()
    assert sorted(calls) == sorted(set(calls))
    wanted = images().requires_grad_()
    plain(wanted).sum().backward()
    assert torch.equal(x.grad, wanted.grad)
    require_same(model.state_dict(), plain.state_dict())


def note(seen: set[str], name: str, *_: object) -> None:
    seen.add(name)


def test_hooks_fire_in_training(network):
    """Hooks on BatchNorm and on neurons see the forward pass of training, whatever runs again."""
    for kept in map(lambda again: MemoryConfig(recompute=again), Recompute):
        model, seen = network(kept), set()
        watched = {n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
        watched |= {n for n, m in model.named_modules() if isinstance(m, MultiStepLeaky)}
        for name in watched:
            model.get_submodule(name).register_forward_hook(partial(note, seen, name))
        model(images())
        assert seen == watched


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 8, 9, 12), (1, 1, 7, 7), (1, 3, 190, 180)])
def test_pooling_is_that_of_torch(shape, dtype, layout, stride):
    """Maxima, gradients and their layouts are nn.MaxPool2d's, ties and large sides included."""
    x = torch.randint(3, shape).to(dtype).to(memory_format=layout)
    found = []
    for kind in (nn.MaxPool2d, LeanMaxPool2d):
        leaf = x.clone().requires_grad_()
        y = kind(3, stride, 1)(leaf)
        y.backward(torch.arange(y.numel()).view(y.shape).to(dtype))
        found.append((y, leaf.grad))
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours, theirs)
        for memory_format in (torch.channels_last, torch.contiguous_format):
            alike = [x.is_contiguous(memory_format=memory_format) for x in (ours, theirs)]
            assert alike[0] == alike[1]


def test_pooling_keeps_places_alone():
    """Two bytes for each maximum, and not the input."""
    x = torch.rand(1, 2, 8, 16, 16, requires_grad=True)
    pool = MaxPool()
    with Alive() as alive:
        y = pool(x * x)
    assert alive.bytes() == y.numel() * (4 + 2)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("memory.spikes=float", "memory.spikes must stay bit with compile=true"),
        ("memory.recompute=blocks", "memory.recompute must stay none with compile=true"),
    ],
)
def test_a_compiled_backbone_chooses_itself(compose, setting, message):
    """What a compiler would not heed is refused."""
    compose("compile=true")
    with pytest.raises(SettingError, match=re.escape(message)):
        compose(setting, "compile=true")


def test_runs_that_keep_otherwise_are_the_same_experiment(compose):
    """`memory` is free within a row of a table."""
    plain, other = compose(), compose("memory.spikes=float", "memory.recompute=neurons")
    assert plain != other
    assert defining(dataclasses.asdict(plain)) == defining(dataclasses.asdict(other))
