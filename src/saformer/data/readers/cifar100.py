"""CIFAR-100: 50,000 training and 10,000 test images, 32x32 RGB, with the 100 fine classes."""

from saformer.data.readers.cifar import Layout, read_cifar
from saformer.data.settings import DatasetConfig
from saformer.data.source import Source

LAYOUT = Layout(
    folder="cifar-100-python",
    train=("train",),
    test="test",
    labels="fine_labels",
    classes=100,
)


def read(config: DatasetConfig, timesteps: int) -> Source:
    """Read all images.

    Raises:
        DataError: See `read_cifar`.
    """
    return read_cifar(config, LAYOUT)
