"""ReLU, the one activation that is used often enough to have its own kernels."""

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
