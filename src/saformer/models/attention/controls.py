"""Controls without attention: a local mixer of tokens takes its place.

Sources: PoolFormer (arXiv 2111.11418) for pooling; Max-Former (arXiv 2505.18608) for a depthwise
convolution in a spiking block, and for the neuron before and the BatchNorm behind it.

D width.
"""

from torch import nn

from saformer.models.attention.settings import AttentionConfig
from saformer.models.layers import ConvBN, Layers, freeze
from saformer.models.neuron import build_neuron
from saformer.models.settings import ModelConfig, NeuronConfig, Residual


def dwconv(dim: int, model: ModelConfig, config: AttentionConfig, neuron: NeuronConfig) -> Layers:
    """BN(DW(SN(x))), or SN(BN(DW(x))) with the SEW residual."""
    mixer = ConvBN(dim, dim, config.kernel_size, groups=dim)
    if model.residual is Residual.membrane:
        return Layers(build_neuron(neuron), mixer)
    return Layers(mixer, build_neuron(neuron))


def pooling(dim: int, model: ModelConfig, config: AttentionConfig, neuron: NeuronConfig) -> Layers:
    """The same with an average of the k x k neighbours, zeros beyond the border, for DW.

    As a convolution, so that its additions are counted. PoolFormer takes the input off again,
    against the residual; here BatchNorm stands between the two.
    """
    branch = dwconv(dim, model, config, neuron)
    (mixer,) = (layer for layer in branch if isinstance(layer, ConvBN))
    nn.init.constant_(mixer.conv.weight, 1 / config.kernel_size**2)
    freeze(mixer.conv)
    return branch
