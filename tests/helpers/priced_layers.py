"""Constants of the hardware models, and layers whose counts follow from a firing rate."""

from saformer.energy.table import Kind, Layer, Values

ADD, MUL = 0.9, 3.7  # pJ, FP32 in 45 nm: Horowitz
ACCESS = 4 * 24.96  # pJ for 32 bits at 3.12 pJ/bit: STEP
ACC = 0.05448  # pJ, an accumulate in 22 nm: Yan et al.


def layer(kind: Kind, values: Values = Values.binary, **counts) -> Layer:
    """A layer of one image and four timesteps, of which the counts that matter are given."""
    return Layer(**dict(name=kind.value, samples=1, timesteps=4) | counts, kind=kind, values=values)


def conv(c_in: int, c_out: int, size: int, rate: float, T: int = 4) -> list[Layer]:
    """A 3 x 3 convolution on spikes, all taps on the map, and the neurons behind it."""
    n_in, n_out = c_in * size**2, c_out * size**2
    return with_neurons(Kind.conv, n_in, n_out, 9 * c_in * n_out, 9 * c_in * c_out, rate, T)


def linear(c_in: int, c_out: int, tokens: int, rate: float, T: int = 4) -> list[Layer]:
    """A linear layer on spikes, and the neurons behind it."""
    n_in, n_out = c_in * tokens, c_out * tokens
    return with_neurons(Kind.linear, n_in, n_out, c_in * n_out, c_in * c_out, rate, T)


def with_neurons(kind, n_in, n_out, macs, weights, rate, T) -> list[Layer]:
    """A weight layer and its neurons, all firing at one rate; sizes are those of one step."""
    spikes, ops = rate * T * n_in, rate * T * macs
    inputs = dict(inputs=T * n_in, nonzero=spikes, value_sum=spikes, ops=ops, ops_by_value=ops)
    work = dict(dense=T * macs, dense_padded=T * macs, weights=weights, outputs=T * n_out)
    neurons = dict(inputs=T * n_out, nonzero=rate * T * n_out, outputs=T * n_out)
    return [layer(kind, timesteps=T, **inputs, **work), layer(Kind.neuron, timesteps=T, **neurons)]
