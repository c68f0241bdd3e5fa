"""ReLU and leaky ReLU, the activations that are used often enough to have their own kernels, and sums."""

from __future__ import annotations

from torch import Tensor

from cnn.ops.backend import choose
from cnn.ops.checks import check_shape
from cnn.ops.reference import activation as reference


def relu(x: Tensor) -> Tensor:
    """y = max(x, 0), elementwise; NaN stays NaN. x, y: any shape."""
    return choose(reference.relu, x)(x)


def relu_backward(dy: Tensor, y: Tensor) -> Tensor:
    """dx = dy where y > 0, else 0. dy, y, dx: the same shape."""
    check_shape(dy, tuple(y.shape), "dy")
    return choose(reference.relu_backward, y)(dy, y)


def leaky_relu(x: Tensor, slope: float) -> Tensor:
    """y = x where x > 0, else slope * x, elementwise. x, y: any shape."""
    return choose(reference.leaky_relu, x)(x, slope)


def leaky_relu_backward(dy: Tensor, x: Tensor, slope: float) -> Tensor:
    """dx = dy where x > 0, else slope * dy. dy, x, dx: the same shape."""
    check_shape(dy, tuple(x.shape), "dy")
    return choose(reference.leaky_relu_backward, x)(dy, x, slope)


def add(a: Tensor, b: Tensor) -> Tensor:
    """a + b in a new tensor: both may be in use elsewhere. a, b: the same shape."""
    check_shape(b, tuple(a.shape), "b")
    return choose(reference.add, a)(a, b)


def add_relu(a: Tensor, b: Tensor) -> Tensor:
    """y = max(a + b, 0), elementwise; NaN stays NaN. a, b, y: the same shape."""
    check_shape(b, tuple(a.shape), "b")
    return choose(reference.add_relu, a)(a, b)
