"""ReLU, leaky ReLU and sums on compiled loops."""

from __future__ import annotations

from torch import Tensor

from cnn.ops.cpu.arrays import flat
from cnn.ops.cpu.kernels import activation as kernels
from cnn.ops.memory import empty


def relu(x: Tensor) -> Tensor:
    y = empty(tuple(x.shape), like=x)
    kernels.relu(flat(x), flat(y))
    return y


def relu_backward(dy: Tensor, y: Tensor) -> Tensor:
    dx = empty(tuple(y.shape), like=y)
    kernels.relu_backward(flat(dy), flat(y), flat(dx))
    return dx


def leaky_relu(x: Tensor, slope: float) -> Tensor:
    y = empty(tuple(x.shape), like=x)
    kernels.scale_where_not_positive(flat(x), flat(x), slope, flat(y))
    return y


def leaky_relu_backward(dy: Tensor, x: Tensor, slope: float) -> Tensor:
    dx = empty(tuple(x.shape), like=x)
    kernels.scale_where_not_positive(flat(dy), flat(x), slope, flat(dx))
    return dx


def add(a: Tensor, b: Tensor) -> Tensor:
    y = empty(tuple(a.shape), like=a)
    kernels.add(flat(a), flat(b), flat(y))
    return y


def add_relu(a: Tensor, b: Tensor) -> Tensor:
    y = empty(tuple(a.shape), like=a)
    kernels.add_relu(flat(a), flat(b), flat(y))
    return y
