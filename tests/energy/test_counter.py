"""A counted network gives the table that its recorded tensors say, however it is run."""

import dataclasses
import itertools

import pytest
import snntorch as snn
import torch
from brute import assert_equals_brute_force, recording
from mostly_slow import mostly_slow
from nets import B, Chain, T, TinySSA, exact, frames, images
from torch import nn
from torch.nn.utils import prune

from saformer.config.files import conf_dir
from saformer.energy import Counter, EnergyError, LayerTable, count, coverage
from saformer.energy.table import Kind, Values, merge
from saformer.models.attention.settings import Aggregate, ApplyTo, AttentionConfig, WeightSource
from saformer.models.neuron import MultiStepLeaky
from saformer.models.settings import ModelConfig, NeuronConfig
from saformer.models.spike_ops import SpikeMask, SpikeMatMul, SpikeSum
from saformer.models.transformer import SAFormer

READINGS = list(itertools.product(WeightSource, Aggregate, ApplyTo))
ABLATIONS = sorted(path.stem for path in (conf_dir() / "ablation").glob("*.yaml"))
MODELS = sorted(path.stem for path in (conf_dir() / "model").glob("*.yaml"))
SMALL = ("model.dim=16", "model.num_heads=2", "model.mlp_ratio=2", "timesteps=3")


def lively(model: nn.Module, x: torch.Tensor) -> nn.Module:
    """In evaluation mode, with BatchNorm statistics under which every layer spikes."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 2.5)
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(x)
    return model.eval()


def counted_by_hand(model: nn.Module, x: torch.Tensor, timesteps: int, **options) -> LayerTable:
    """Count, and check every number against the brute force."""
    with recording(model) as calls:
        table = count(model, x, **options)
    assert_equals_brute_force(table, model, calls, timesteps, len(x))
    return table


def assert_same(one: LayerTable, other: LayerTable) -> None:
    """Two tables are equal in every field of every layer."""
    assert one.params == other.params
    assert [layer.name for layer in one.layers] == [layer.name for layer in other.layers]
    for a, b in zip(one.layers, other.layers, strict=True):
        for field in dataclasses.fields(a):
            left, right = getattr(a, field.name), getattr(b, field.name)
            equal = torch.equal(left, right) if torch.is_tensor(left) else left == right
            assert equal, f"{a.name}.{field.name}: {left} and {right}"


def by_name(table: LayerTable) -> dict:
    return {layer.name: layer for layer in table.layers}


@pytest.mark.parametrize(
    "reading", mostly_slow(READINGS, 3), ids=lambda r: " ".join(axis.value for axis in r)
)
def test_every_reading_of_sasa(reading):
    """Weights, axis and target of the mask: all counts equal the brute force."""
    weights, aggregate, apply_to = reading
    torch.manual_seed(0)
    model = SAFormer(
        ModelConfig(name="small", dim=16, depth=1, num_heads=2, mlp_ratio=2, patch_size=2),
        AttentionConfig(weights=weights, aggregate=aggregate, apply_to=apply_to),
        NeuronConfig(),
        **{"in_channels": 1, "image_size": 8, "num_classes": 10, "timesteps": 3},
    )
    x = images(4, 1, 8)
    table = counted_by_hand(lively(model, x), x, 3)
    assert coverage(model, x, table) == 1
    masks = 0 if weights is WeightSource.none else 2 if aggregate is Aggregate.both else 1
    assert len(table.of(Kind.sum)) == masks
    assert len(table.of(Kind.mask)) == bool(masks) + (weights is WeightSource.qk)


@pytest.mark.parametrize("ablation", mostly_slow(ABLATIONS, 2))
def test_every_ablation(backbone, ablation):
    """Operators, thresholds, DWC places and residuals of conf/ablation equal the brute force."""
    x = images(4, 1, 8)
    model = lively(backbone(*SMALL, f"ablation={ablation}"), x)
    table = counted_by_hand(model, x, 3)
    assert coverage(model, x, table) == 1
    integer = {layer.name for layer in table.layers if layer.values is Values.integer}
    assert bool(integer & {"blocks.0.mlp.layers.0.conv"}) == (ablation == "sew_residual")


@pytest.mark.parametrize("order", ["qk_v", "q_kv"])
@pytest.mark.parametrize("loop", [False, True], ids=["at once", "loop"])
@pytest.mark.parametrize("make", [images, frames], ids=["image", "events"])
def test_matrix_products_of_attention(order, loop, make):
    """Both orders of SSA, of which the second product meets whole numbers, behind a SEW residual.

    An image is multiplied once, since it is the same in every step, events are not.
    """
    table = counted_by_hand(TinySSA(loop, order).eval(), make(), T)
    layers = by_name(table)
    assert layers["product1"].values is Values.binary
    assert layers["product2"].values is Values.integer
    assert layers["product2"].ops < layers["product2"].ops_by_value
    assert layers["fc1"].values is Values.integer
    assert [layer.name for layer in table.layers if layer.static] == (
        ["conv1"] if make is images else []
    )
    assert layers["conv1"].values is (Values.real if make is images else Values.binary)
    assert [layer.name for layer in table.layers if layer.last] == ["head"]


@pytest.mark.parametrize("make", [images, frames], ids=["image", "events"])
def test_a_loop_over_time_equals_all_steps_at_once(make):
    """snnTorch's neurons, called T times, give the table of ours for the same spikes."""
    at_once, loop = TinySSA(), TinySSA(loop=True)
    x = make()
    assert torch.equal(at_once(x), loop(x))
    assert_same(count(at_once, x), count(loop, x))


def test_a_loop_of_as_many_samples_as_channels_asks_for_timesteps():
    """Where [B, 4, ...] of four samples may be four steps, timesteps=1 says that it is a loop."""
    model = TinySSA(loop=True)
    with pytest.raises(EnergyError, match=r"^layer product1: .* give timesteps=... \(1 in a loop"):
        count(model, images(4))
    assert_same(count(model, images(4), timesteps=1), count(TinySSA(), images(4)))


def test_batches_add_up():
    """Ten samples in batches of 4, 4 and 2, as tables or in one Counter, equal ten at once."""
    model, x = TinySSA().eval(), images(10)
    whole, parts = count(model, x), x.split([4, 4, 2])
    assert_same(merge(count(model, part) for part in parts), whole)
    counter = Counter(model)
    for part in parts:
        counter.start(99)  # and never finished: it is dropped
        with torch.no_grad(), counter.counting(len(part)):
            model(part)
        counter.stop()  # of a batch that was not started: nothing happens
    assert counter.samples == 10
    assert_same(counter.table(), whole)


@pytest.mark.parametrize("model", mostly_slow(MODELS, 6))
def test_every_model_is_counted_whole(backbone, unweighted, model):
    """The dense work of what is counted is what FlopCounterMode sees, to the digit."""
    size = 128 if "events" in model else 224 if "_8_" in model else 8 if "tiny" in model else 32
    channels = 2 if "events" in model else 3
    zeros, ones = ([value] * channels for value in (0, 1))
    data = (f"dataset.in_channels={channels}", f"dataset.mean={zeros}", f"dataset.std={ones}")
    # Blocks are alike, but for those of several stages.
    depth = () if model.startswith("qkformer") else ("model.depth=1",)
    net = backbone(f"model={model}", *data, *depth, f"dataset.image_size={size}", "timesteps=1")
    x = torch.randn(1, channels, size, size)
    assert coverage(net, x, count(net, x)) == 1


def test_what_is_not_in_a_layer_is_missed_and_seen():
    """Functional products are not counted: coverage tells, with the numbers of facts 2.3."""
    x = images(4)
    table = count(TinySSA(), x)
    assert sum(layer.dense_padded for layer in table.layers) == 6_804_480
    functional = TinySSA(markers=False)
    table = count(functional, x)
    assert sum(layer.dense_padded for layer in table.layers) == 6_542_336
    assert coverage(functional, x, table) == 6_542_336 / 6_804_480


def test_fused_attention_is_missed_and_seen():
    """scaled_dot_product_attention, which FlopCounterMode does not see on a CPU, lowers it too."""

    class Fused(Chain):
        def forward(self, x):
            x = super().forward(x)
            return nn.functional.scaled_dot_product_attention(x, x, x)

    model, x = Fused(nn.Linear(8, 8), MultiStepLeaky(beta=0.5), timesteps=1), torch.rand(2, 4, 8)
    assert coverage(model, x, count(model, x)) == 0.5


@pytest.mark.parametrize("in_place", [False, True], ids=["torch.compile", "module.compile"])
def test_a_compiled_network_is_counted_eagerly_and_stays_compiled(in_place):
    """Its table is the eager one, no graph is run or made meanwhile, and all run afterwards."""
    ran = []

    def backend(graph, _inputs):
        return lambda *args: ran.append("graph") or graph(*args)

    torch._dynamo.reset()
    model, x = TinySSA().eval(), images()
    eager = count(model, x)
    if in_place:
        model.compile(backend=backend)
    net = model if in_place else torch.compile(model, backend=backend)
    with torch.no_grad():
        logits = net(x)
    graphs = len(ran)
    assert graphs
    counter = Counter(net)
    with torch.no_grad(), counter.counting(len(x)):
        assert torch.equal(net(x), logits)
    assert coverage(net, x, counter.table()) == 1
    assert len(ran) == graphs
    assert_same(counter.table(), eager)
    recompiles = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    with torch.no_grad():
        assert torch.equal(net(x), logits)
    assert len(ran) == 2 * graphs
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == recompiles


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    """Under autocast the layers see other numbers, and these are counted exactly."""
    with torch.autocast("cpu", dtype=dtype):
        counted_by_hand(TinySSA().eval(), frames(8), T)


def test_inference_mode():
    """In Lightning's evaluation, where no gradient can be taken, the table is the same."""
    model, x = TinySSA(), images()
    prune.random_unstructured(model.conv2, "weight", amount=0.5)
    expected = count(model, x)
    with torch.inference_mode():
        assert_same(count(model, x.clone()), expected)


def test_counting_leaves_no_trace():
    """Outputs, modes, random numbers, buffers and hooks are what they are without counting."""
    model = Chain(TinySSA(), nn.BatchNorm1d(B), nn.Dropout(0.5)).train()
    model.layers[1].eval()
    x = images()
    torch.manual_seed(0)
    expected = model(x)
    after, state = torch.get_rng_state(), {k: v.clone() for k, v in model.state_dict().items()}
    table = count(model, x, timesteps=T)
    coverage(model, x, table)
    assert torch.equal(torch.get_rng_state(), after)
    assert [module.training for module in model.layers] == [True, False, True]
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    torch.manual_seed(0)
    counter = Counter(model, T)
    with counter.counting(len(x)):
        counted = model(x)
    assert torch.equal(counted, expected) and counted.requires_grad
    assert torch.equal(torch.get_rng_state(), after)
    with pytest.raises(ZeroDivisionError), counter.counting(len(x)):
        model(x[:1].expand_as(x))
        1 / 0  # noqa: B018
    assert not any(module._forward_hooks for module in model.modules())
    assert_same(counter.table(), table)


def test_keywords():
    """A call by keyword, in any order, counts as one by position."""

    class Net(nn.Module):
        def __init__(self, keywords: bool) -> None:
            super().__init__()
            self.fc, self.lif = nn.Linear(6, 6), MultiStepLeaky(beta=0.5, threshold=0.1)
            self.product, self.mask, self.sum = SpikeMatMul(), SpikeMask(), SpikeSum()
            self.keywords = keywords
            exact(self)

        def forward(self, x):
            if not self.keywords:
                x = self.lif(self.fc(x))
                x = self.product(x, self.mask(self.sum(x, -1), x).mT)
            else:
                x = self.lif(x=self.fc(input=x))
                x = self.product(b=self.mask(x=x, mask=self.sum(dim=-1, x=x)).mT, a=x)
            return x

    x = torch.arange(96.0).view(1, 4, 4, 6) / 64
    table = count(Net(keywords=True), x[0], timesteps=1)
    assert_same(table, count(Net(keywords=False), x[0], timesteps=1))
    assert by_name(table)["mask"].ops > 0


def test_one_neuron_for_all_layers_of_a_loop():
    """Where every neuron is used in several places, timesteps tell how many places there are."""

    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.timesteps = T
            self.layers, self.lif = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 4)), snn.Leaky(0.5)
            exact(self)

        def forward(self, x):
            mems = [torch.zeros(len(x), size) for size in (6, 4)]
            for frame in x.unbind(1):
                spikes = frame
                for i, layer in enumerate(self.layers):
                    spikes, mems[i] = self.lif(layer(spikes), mems[i])
            return spikes

    x = frames(3)[:, :, 0, 0, :6]
    with pytest.raises(EnergyError, match=r"^layer lif has neurons of several sizes$"):
        count(One(), x, timesteps=1)
    layers = by_name(count(One(), x))
    assert [layer.timesteps for layer in layers.values()] == [T] * 3
    assert layers["lif"].spikes_of_neuron.shape == (6 + 4,)
    assert layers["lif"].nonzero_t.sum() == layers["lif"].nonzero > 0


@pytest.mark.parametrize("loop", [False, True], ids=["at once", "loop"])
def test_a_module_used_in_several_places(loop):
    """Its operations add up within T timesteps, and a neuron has neurons of its own in each."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.lif = nn.Linear(6, 6), (snn.Leaky if loop else MultiStepLeaky)(beta=0.5)
            self.first = (snn.Leaky if loop else MultiStepLeaky)(beta=0.5)
            self.end = nn.Linear(3, 2)
            exact(self)

        def fire(self, lif, x, mems, place):
            if not loop:
                return lif(x)
            spikes, mems[place] = lif(x, mems.get(place, torch.zeros_like(x)))
            return spikes

        def step(self, x, mems):
            x = self.fire(self.first, x, mems, 0)
            x = self.fire(self.lif, self.fc(x), mems, 1)
            x = self.fire(self.lif, self.fc(x)[..., :3], mems, 2)
            return self.end(x)

        def forward(self, x):
            x, mems = x.transpose(0, 1), {}
            return torch.stack([self.step(step, mems) for step in x]) if loop else self.step(x, {})

    x = frames(3)[:, :, 0, 0, :6] * 2
    layers = by_name(count(Shared(), x))
    assert [layer.timesteps for layer in layers.values()] == [T] * 4
    assert layers["fc"].inputs == 2 * x.numel()
    assert layers["fc"].dense == 2 * x.numel() * 6
    assert layers["fc"].nonzero_t.sum() == layers["fc"].nonzero
    assert layers["lif"].spikes_of_neuron.shape == (6 + 3,)
    assert layers["lif"].spikes_of_neuron.sum() == layers["lif"].nonzero > 0
    assert layers["lif"].spikes_of_neuron[6:].sum() == layers["end"].nonzero > 0


def test_the_first_layer_of_a_buffer_that_is_written_over():
    """Frames that a loop copies into one tensor are not taken for a picture that stands still."""

    class Buffered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.lif = nn.Linear(3, 3), snn.Leaky(beta=0.5)

        def forward(self, x):
            mem, buffer = torch.zeros(len(x), 3), torch.empty(len(x), 3)
            for frame in x.unbind(1):
                _, mem = self.lif(self.fc(buffer.copy_(frame)), mem)
            return mem

    moving = torch.rand(2, T, 3)
    assert not count(Buffered(), moving).layers[0].static
    assert count(Buffered(), moving[:, :1].expand(2, T, 3)).layers[0].static
