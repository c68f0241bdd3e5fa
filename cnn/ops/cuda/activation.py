"""ReLU, leaky ReLU and sums in Triton."""

from __future__ import annotations

from torch import Tensor

from cnn.ops.cuda.kernels import elementwise as kernels
from cnn.ops.cuda.launching import blocks, launch
from cnn.ops.memory import empty

BLOCK = 1024


def relu(x: Tensor) -> Tensor:
    y = empty(tuple(x.shape), like=x)
    launch(kernels.relu, (blocks(x.numel(), BLOCK),), x.contiguous(), y, x.numel(), BLOCK)
    return y


def relu_backward(dy: Tensor, y: Tensor) -> Tensor:
    dx = empty(tuple(y.shape), like=y)
    grid = (blocks(y.numel(), BLOCK),)
    launch(kernels.relu_backward, grid, dy.contiguous(), y.contiguous(), dx, y.numel(), BLOCK)
    return dx


def leaky_relu(x: Tensor, slope: float) -> Tensor:
    return leaky_relu_backward(x, x, slope)


def leaky_relu_backward(dy: Tensor, x: Tensor, slope: float) -> Tensor:
    dx = empty(tuple(x.shape), like=x)
    grid = (blocks(x.numel(), BLOCK),)
    kernel = kernels.scale_where_not_positive
    launch(kernel, grid, dy.contiguous(), x.contiguous(), dx, x.numel(), float(slope), BLOCK)
    return dx


def add(a: Tensor, b: Tensor) -> Tensor:
    return _add(a, b, rectify=False)


def add_relu(a: Tensor, b: Tensor) -> Tensor:
    return _add(a, b, rectify=True)


def _add(a: Tensor, b: Tensor, *, rectify: bool) -> Tensor:
    y = empty(tuple(a.shape), like=a)
    launch(kernels.add, (blocks(a.numel(), BLOCK),), a.contiguous(), b.contiguous(), y, a.numel(), rectify, BLOCK)
    return y
