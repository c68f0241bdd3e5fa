"""Adam in Triton."""

from __future__ import annotations

from torch import Tensor

from cnn.ops.cuda.kernels import optimizer as kernels
from cnn.ops.cuda.launching import blocks, launch

BLOCK = 1024


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
    vectors, count = (data, gradient.contiguous(), mean, square), data.numel()
    constant = *betas, 1 - betas[0], 1 - betas[1], eps
    launch(kernels.adam, (blocks(count, BLOCK),), *vectors, step, correction, count, *constant, BLOCK)
