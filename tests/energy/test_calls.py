"""What one layer is given and makes of it is counted exactly, whatever comes before and between."""

import pytest
import torch
from brute import Spikes, assert_equals_brute_force, recording
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import Chain, exact
from torch import Tensor, nn
from torch.nn.utils import prune

from saformer.energy import Counter, LayerTable, count
from saformer.energy.table import Kind, Layer, Values
from saformer.models.spike_ops import SpikeMask, SpikeMatMul, SpikeMax, SpikeSum

T, B = 3, 2


def counted(model: nn.Module, *inputs: Tensor) -> LayerTable:
    """Count inputs [T, B, ...], and check every number against the brute force."""
    counter = Counter(model, timesteps=T, neurons=(Spikes,))
    with recording(model) as calls, torch.no_grad(), counter.counting(B):
        model(*inputs)
    table = counter.table()
    assert_equals_brute_force(table, model, calls, T, B)
    return table


def spikes(*shape: int, rate: float = 0.3) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return (torch.rand(shape, generator=generator) < rate).float()


class Marker(nn.Module):
    """One marker, with the weight layer and the neuron that a network must have, unused."""

    def __init__(self, marker: nn.Module) -> None:
        super().__init__()
        self.marker, self.neuron, self.fc = marker, Spikes(), nn.Linear(1, 1)

    def forward(self, *args):
        return self.marker(*args)


def layer_of(model: nn.Module, *inputs) -> Layer:
    return counted(model, *inputs).layers[0]


numbers = st.lists(st.integers(-2, 3), min_size=1, max_size=30)


@given(
    sizes=st.tuples(*[st.integers(1, 4)] * 4),
    left=numbers,
    right=numbers,
    binary=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_matrix_product(sizes, left, right, binary):
    """Products of any sizes and whole numbers: pairs, repeated additions and both one-sided."""
    heads, rows, inner, columns = sizes

    def filled(values: list[int], *shape: int) -> Tensor:
        x = torch.zeros(T, B, heads, *shape)
        x.view(-1)[:] = torch.tensor(values).repeat(x.numel())[: x.numel()]
        return (x != 0).float() if binary else x

    product = layer_of(
        Marker(SpikeMatMul()), filled(left, rows, inner), filled(right, inner, columns)
    )
    assert product.ops <= min(product.ops_left, product.ops_right)
    assert max(product.ops_left, product.ops_right) <= product.dense


@pytest.mark.parametrize("heads", [(4, 1), (1, 4)])
def test_a_product_with_an_operand_for_all_heads(heads):
    """An operand that is broadcast drives a row in each head that it meets."""
    q, k = spikes(T, B, heads[0], 5, 6), spikes(T, B, heads[1], 6, 7)
    counter = Counter(Marker(SpikeMatMul()), timesteps=T, neurons=(Spikes,))
    with counter.counting(B):
        counter.model(q, k)
    product = counter.table().layers[0]
    repeated = (x.expand(T, B, 4, -1, -1).contiguous() for x in (q, k))
    expected = layer_of(Marker(SpikeMatMul()), *repeated)
    for field in ("ops", "ops_left", "ops_right", "dense", "outputs"):
        assert getattr(product, field) == getattr(expected, field)
    assert torch.equal(product.ops_of_sample, expected.ops_of_sample)


@pytest.mark.parametrize("dim", [-1, -2])
@pytest.mark.parametrize("marker", [SpikeSum, SpikeMax])
@pytest.mark.parametrize("scale", [1, 3], ids=["spikes", "counts"])
def test_sums_and_maxima(dim, marker, scale):
    """Along either axis every spike is one operation, and a count of k is k by value."""
    x = scale * spikes(T, B, 4, 5, 6)
    one = layer_of(Marker(marker()), x, dim)
    assert one.ops == (x != 0).sum()
    assert one.ops_by_value == x.sum()


@pytest.mark.parametrize("shape", [(4, 1, 6), (4, 5, 1), (4, 5, 6)])
def test_masks(shape):
    """The spikes that pass are counted, under a mask over tokens, channels or both."""
    mask, x = spikes(T, B, *shape, rate=0.6), spikes(T, B, 4, 5, 6)
    one = layer_of(Marker(SpikeMask()), mask, x)
    assert one.ops == (mask * x).sum() > 0
    assert one.inputs == mask.numel() and one.outputs == x.numel()
    assert layer_of(Marker(SpikeMask()), mask, x / 2).values is Values.real


def test_values_that_change_are_classified_anew():
    """A layer seen with spikes that then meets other values is of these, and stays exact."""
    model = Chain(Spikes(), nn.Conv2d(2, 3, 3, padding=1), Spikes())
    batches = [spikes(T * B, 2, 5, 5), 2 * spikes(T * B, 2, 5, 5), spikes(T * B, 2, 5, 5) / 2]
    batches += [torch.zeros(T * B, 2, 5, 5), batches[0]]
    counter, seen, ops = Counter(model, timesteps=T, neurons=(Spikes,)), [], 0.0
    for x in batches:
        with torch.no_grad(), counter.counting(B):
            model(x)
        (conv,) = counter.table().of(Kind.conv)
        seen.append(conv.values)
        (alone,) = counted(model, x).of(Kind.conv)
        ops += alone.ops
        assert conv.ops == ops
    binary, integer, real = Values.binary, Values.integer, Values.real
    assert seen == [binary, integer, real, real, real]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_changes_in_place_between_a_neuron_and_the_next_layer(mode):
    """The neuron is counted as it fired, the layer behind it as it was given."""

    class InPlace(Chain):
        def forward(self, x):
            x = self.layers[0](x)
            x[..., ::2].mul_(0)
            return self.layers[1](x)

    with mode():
        neuron, fc = counted(InPlace(Spikes(), nn.Linear(6, 4)), spikes(T, B, 6, rate=1)).layers
    assert (neuron.rate, fc.rate) == (1, 0.5)


def test_what_one_layer_was_given_before_says_nothing_of_another():
    """A tensor for two layers is whole numbers to one, though the other has seen real ones."""

    class Two(Chain):
        def forward(self, x, y):
            self.layers[0](x), self.layers[1](y)
            return self.layers[2](y)

    counter = Counter(Two(*(nn.Linear(6, 4) for _ in "12"), Spikes()), T, neurons=(Spikes,))
    whole = 2 * spikes(T, B, 6)
    for x in (whole / 4, whole):
        with torch.no_grad(), counter.counting(B):
            counter.model(x, whole)
    values = [layer.values for layer in counter.table().layers]
    assert values == [Values.real, Values.integer, Values.integer]


def test_views_of_spikes_are_counted_as_they_are_given():
    """Slices of equal size at equal places, and transposed maps, are not taken for each other."""

    class Views(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.neuron = Spikes()
            self.first, self.second, self.every = (nn.Linear(4, 3) for _ in range(3))
            self.conv, self.mirrored = (nn.Conv2d(2, 3, (3, 1), (2, 1), 1) for _ in range(2))

        def forward(self, x):
            x = self.neuron(x)
            self.first(x[..., :4]), self.second(x[..., 4:]), self.every(x[..., ::2])
            return self.conv(x.flatten(0, 1)), self.mirrored(x.mT.flatten(0, 1))

    x = torch.zeros(T, B, 2, 8, 8)
    x[..., :3, :4] = 1
    layers = {layer.name: layer for layer in counted(Views(), x).layers}
    assert layers["first"].rate > 0 == layers["second"].rate
    assert layers["conv"].ops != layers["mirrored"].ops


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("amount", [0.0, 0.6])
def test_a_hierarchy_of_strides(memory_format, amount):
    """Stages with stride-2 convolutions, grouped, depthwise, transposed, dilated and pruned."""
    model = Chain(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Conv2d(8, 12, 3, 2, padding=1, groups=2, bias=False),
        Spikes(),
        nn.Conv2d(12, 12, 5, padding=4, dilation=2, groups=12),
        nn.Conv2d(12, 16, 2, stride=2),
        nn.ConvTranspose2d(16, 8, 3, stride=2, padding=1),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular"),
        nn.Flatten(),
        nn.Linear(8 * 49, 5),
    )
    for layer in model.layers:
        if amount and hasattr(layer, "weight"):
            prune.l1_unstructured(layer, "weight", amount)
    x = spikes(T * B, 3, 15, 16).contiguous(memory_format=memory_format)
    table = counted(model.to(memory_format=memory_format), x)
    assert table.layers[-1].last


def test_a_layer_called_with_several_sizes():
    """Each call has the fan-outs of its own input and output size."""

    class Sizes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.neuron, self.up = Spikes(), nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1)
            self.down = nn.Conv2d(2, 3, 3, stride=2, padding=1)

        def forward(self, x):
            x = self.neuron(x)
            self.down(x), self.down(nn.functional.pad(x, (1, 0)))  # the same output size
            self.up(x, output_size=(9, 9)), self.up(x, output_size=(10, 10))
            return self.up(x[..., 1:])

    counted(Sizes(), spikes(T * B, 2, 5, 5))


def test_weights_may_change_between_counters():
    """Pruning shows in the next counter."""
    model, x = Chain(Spikes(), exact(nn.Linear(6, 4))), spikes(B, 6, rate=1)
    model.layers[1].weight.data.fill_(1)
    assert count(model, x, neurons=(Spikes,)).layers[1].ops == B * 24
    model.layers[1].weight.data[0] = 0
    assert count(model, x, neurons=(Spikes,)).layers[1].ops == B * 18


def test_neurons_that_are_dead_or_saturated():
    """Silent in all steps of all samples, or firing in over 99 % of them: shares of a layer."""
    x = torch.zeros(T, B, 2, 4)
    x[..., 0, 0] = 1  # saturated
    x[:, :, 1, :] = 1
    x[0, 0, 1, :] = 0  # neither
    x[2, 1, 0, 1] = 1  # neither, one spike
    neuron, _ = counted(Chain(Spikes(), nn.Linear(4, 1)), x).layers
    assert neuron.dead == 2 / 8
    assert neuron.saturated == 1 / 8
    assert neuron.spikes_of_neuron.tolist() == [6, 1, 0, 0, 5, 5, 5, 5]


def test_neurons_are_the_same_in_any_order_of_memory():
    """A batch of one lies in memory differently; its neurons still add up with those before."""
    model = Chain(Spikes(), nn.Conv2d(2, 1, 1))
    counter = Counter(model, timesteps=T, neurons=(Spikes,))
    x = spikes(T * B, 2, 3, 4)
    for one in (x, x.contiguous(memory_format=torch.channels_last), x.mT.contiguous().mT):
        with torch.no_grad(), counter.counting(B):
            model(one)
    neuron, _ = counter.table().layers
    assert neuron.spikes_of_neuron.tolist() == (3 * x.sum(0).flatten()).tolist()


@pytest.mark.parametrize("parts", [1, 5])
def test_parts_of_a_sample_in_the_batch(parts):
    """Tokens or heads folded into the batch, [T*B*P, ...], belong to their samples."""
    model = Chain(Spikes(), nn.Linear(6, 4), nn.Unflatten(0, (T, B, parts)))
    x = spikes(T, B, parts, 6)
    x[:, 1] = 0
    counter = Counter(model, timesteps=T, neurons=(Spikes,))
    with torch.no_grad(), counter.counting(B):
        model(x.flatten(0, 2))
    for layer in counter.table().layers:
        assert layer.timesteps == T
        assert layer.nonzero_t.tolist() == x.sum((1, 2, 3)).tolist()
    assert layer.ops_of_sample.tolist() == [4 * x.sum(), 0]
