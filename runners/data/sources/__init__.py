"""The registry of datasets, by `data.name`."""

from runners.data.dataset import Source
from runners.data.sources.arrays import Arrays
from runners.data.sources.cifar10 import Cifar10
from runners.data.sources.fashion_mnist import FashionMnist
from runners.data.sources.folder import Folder
from runners.data.sources.idx import Idx, Mnist
from runners.data.sources.moving_mnist import MovingMnist

SOURCES: dict[str, type[Source]] = {
    source.kind: source for source in (Mnist, FashionMnist, Cifar10, Idx, Folder, Arrays, MovingMnist)
}

__all__ = ["SOURCES"]
