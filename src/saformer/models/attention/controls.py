"""Controls without attention: a local mixer of tokens replaces it.

Sources: PoolFormer (arXiv 2111.11418) for pooling; Max-Former (arXiv 2505.18608) for a depthwise
convolution in a spiking block, and for the neuron before it and the BatchNorm after it.

D width.
"""

from torch import nn

from saformer.models.attention.spec import BlockSpec
from saformer.models.layers import ConvBN, Layers, freeze
from saformer.models.neuron import build_neuron
from saformer.models.settings import Residual


def dwconv(spec: BlockSpec) -> Layers:
    """Build BN(DW(SN(x))), or SN(BN(DW(x))) with the SEW residual."""
    mixer = ConvBN(spec.dim, spec.dim, spec.attention.kernel_size, groups=spec.dim)
    if spec.model.residual is Residual.membrane:
        return Layers(build_neuron(spec.neuron), mixer)
    return Layers(mixer, build_neuron(spec.neuron))


def pooling(spec: BlockSpec) -> Layers:
    """Build the same, but with an average of the k x k neighbours (zeros beyond the border) as DW.

    It is a convolution, so that its additions are counted. PoolFormer subtracts the input from the
    average, because the residual adds it; we do not, because BatchNorm is between the two.
    """
    branch = dwconv(spec)
    (mixer,) = (layer for layer in branch if isinstance(layer, ConvBN))
    nn.init.constant_(mixer.conv.weight, 1 / spec.attention.kernel_size**2)
    freeze(mixer.conv)
    return branch
