"""What cannot be counted is said in one line, which names the layer where there is one."""

import pytest
import snntorch as snn
import torch
from brute import Spikes
from nets import Chain, T, TinySSA, frames, images
from torch import nn

from saformer.energy import Counter, EnergyError, count
from saformer.energy.table import merge
from saformer.models.neuron import MultiStepLeaky


def test_values_that_are_not_finite_name_their_layer():
    """NaN or infinity ends in one line with the first layer that meets it; the pass goes on."""
    model, x = TinySSA(), images()
    for bad, layer in ((1.0, "lif2"), (torch.inf, "conv1"), (torch.nan, "conv1")):
        x[1, 2, 3, 4] = bad
        if layer == "lif2":
            model.lif2.register_forward_hook(lambda _m, _x, out: out * torch.nan)
        else:
            model.lif2._forward_hooks.clear()
        counter = Counter(model)
        with torch.no_grad(), counter.counting(len(x)):
            assert model(x).shape == (T, len(x), 10)
        with pytest.raises(EnergyError) as error:
            counter.table()
        assert str(error.value) == f"layer {layer} meets NaN or infinite values"


def test_weights_that_are_not_finite_name_their_layer():
    """They make no spike, and a count of no spikes is a number that looks like one."""
    model = TinySSA()
    model.conv2.bias.data[3] = torch.nan
    with pytest.raises(EnergyError) as error:
        count(model, images())
    assert str(error.value) == "layer conv2 has conv2.bias not finite"


@pytest.mark.parametrize(
    ("model", "x", "message"),
    [
        (nn.Sequential(nn.Linear(3, 3)), torch.ones(2, 3), "Sequential has no spiking neuron, "),
        (nn.Sequential(MultiStepLeaky(beta=0.5)), torch.ones(2, 3), "Sequential has no conv"),
        (TinySSA(), images()[:0], "the batch is empty"),
        (Chain(Spikes(), nn.Linear(3, 3), nn.Flatten(0)), torch.ones(2, 3), None),
    ],
    ids=["no neuron", "no layer", "empty batch", "fine"],
)
def test_what_cannot_be_counted_is_told_in_one_line(model, x, message):
    """A network without neurons or layers, and a batch without samples, are named."""
    if message is None:
        assert count(model, x, neurons=(Spikes,)).samples == 2
        return
    with pytest.raises(EnergyError, match=f"^{message}") as error:
        count(model, x)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("loop", [False, True], ids=["at once", "loop"])
def test_another_number_of_samples_is_told(loop):
    """A batch of another size than the counter was told ends in one line, and nothing is kept."""
    counter = Counter(TinySSA(loop))
    with torch.no_grad(), counter.counting(2):
        counter.model(images(3))
    message = "layer conv1: a tensor .* does not fold into 2 samples" if loop else "the neurons ran"
    with pytest.raises(EnergyError, match=f"^{message}") as error:
        counter.table()
    assert "\n" not in str(error.value) and counter.samples == 0


def test_time_in_front_of_samples_is_told():
    """Frames [T, B, ...] given as a batch of T samples do not pass as one step each."""

    class TimeFirst(TinySSA):
        def forward(self, x):
            return super().forward(x.transpose(0, 1))

    with pytest.raises(EnergyError, match=r"^the neurons ran 1 timesteps of 4 samples, not 4"):
        count(TimeFirst(), frames(3).transpose(0, 1))


@pytest.mark.parametrize("steps", [2, T])
def test_a_loop_that_hides_tokens_in_the_batch_asks_for_timesteps(steps):
    """[B*N, D] in every step of a loop looks like N timesteps, which cannot be: timesteps=1."""

    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.lif = nn.Linear(3, 3), snn.Leaky(beta=0.5)

        def forward(self, x):
            mem = torch.zeros(len(x), 5, 3)
            for _ in range(steps):
                spikes, mem = self.lif(self.fc(x.flatten(0, 1)).unflatten(0, (-1, 5)), mem)
            return spikes

    with pytest.raises(EnergyError, match=r"^layer fc seems to hold 5 timesteps .* timesteps=1$"):
        count(Loop(), torch.ones(2, 5, 3))
    table = count(Loop(), torch.ones(2, 5, 3), timesteps=1)
    assert [layer.timesteps for layer in table.layers] == [steps, steps]
    assert table.layers[0].static


def test_nothing_counted():
    """Without a forward pass there is no table, and the message says so."""
    counter = Counter(TinySSA())
    with counter.counting(2):
        pass
    with pytest.raises(EnergyError, match=r"^nothing was counted"):
        counter.table()


def test_a_batch_that_was_not_ended_is_dropped():
    """The start of a batch forgets one that an error left open."""
    counter = Counter(TinySSA())
    for samples in (3, 2):
        counter.start(samples)
        counter.model(images(samples))
    counter.stop()
    assert counter.table().samples == 2


def test_tables_that_do_not_belong_together_are_not_merged():
    """Other layers, other timesteps or other image sizes are refused in one line."""
    model = TinySSA()
    with pytest.raises(ValueError, match="different networks or timesteps"):
        merge([count(model, images(2)), count(TinySSA(markers=False), images(2))])
    conv = Chain(nn.Conv2d(3, 4, 3), MultiStepLeaky(beta=0.5), timesteps=1)
    counter = Counter(conv)
    for size in (8, 9):
        with counter.counting(2):
            conv(images(2, 3, size))
    with pytest.raises(EnergyError, match=r"^layer layers\.1 has neurons of several sizes$"):
        counter.table()
