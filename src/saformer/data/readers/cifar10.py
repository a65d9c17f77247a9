"""CIFAR-10: 50,000 training and 10,000 test images of 10 classes, 32x32 RGB."""

from saformer.data.readers.cifar import Layout, read_cifar
from saformer.data.settings import DatasetConfig
from saformer.data.source import Source

LAYOUT = Layout(
    folder="cifar-10-batches-py",
    train=tuple(f"data_batch_{i}" for i in range(1, 6)),
    test="test_batch",
    labels="labels",
    classes=10,
)


def read(config: DatasetConfig, timesteps: int) -> Source:
    """Read all images.

    Raises:
        DataError: See `read_cifar`.
    """
    return read_cifar(config, LAYOUT)
