"""Adam's step in one pass over its vectors."""

from __future__ import annotations

from torch import Tensor

from cnn.ops.backend import choose
from cnn.ops.checks import check_shape, check_writable
from cnn.ops.reference import optimizer as reference


def adam(
    data: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    betas: tuple[float, float],
    eps: float,
    step: Tensor,
    correction: Tensor,
) -> None:
    """mean <- b1 mean + (1 - b1) g, square <- b2 square + (1 - b2) g^2, and with these

    data <- data - step * mean / (sqrt(square) * correction + eps), all in place; vectors [P], step and correction [].
    """
    for name, vector in (("gradient", gradient), ("mean", mean), ("square", square)):
        check_shape(vector, tuple(data.shape), name)
    check_writable(data=data, mean=mean, square=square)
    choose(reference.adam, data)(data, gradient, mean, square, betas, eps, step, correction)
