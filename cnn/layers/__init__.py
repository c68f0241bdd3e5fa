"""Every layer that a config may name. A layer of one's own joins with one line: `LAYERS["swish"] = Swish`."""

from cnn.layer import Layer
from cnn.layers.activation import ReLU, Sigmoid, Softmax
from cnn.layers.conv import Conv2d, Conv3d
from cnn.layers.linear import Linear
from cnn.layers.norm import BatchNorm
from cnn.layers.pool import MaxPool2d, MaxPool3d
from cnn.layers.shape import Flatten

__all__ = ["LAYERS"]

LAYERS: dict[str, type[Layer]] = {
    layer.kind: layer
    for layer in (Conv2d, Conv3d, MaxPool2d, MaxPool3d, BatchNorm, Flatten, Linear, ReLU, Sigmoid, Softmax)
}
