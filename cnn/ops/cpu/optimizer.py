"""Adam on a compiled loop."""

from __future__ import annotations

from torch import Tensor

from cnn.ops.cpu.arrays import flat
from cnn.ops.cpu.kernels import optimizer as kernels


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
    vectors = flat(data), flat(gradient), flat(mean), flat(square)
    constants = vectors[0].dtype.type([*betas, 1 - betas[0], 1 - betas[1], eps])
    kernels.adam(*vectors, *constants, flat(step), flat(correction))
