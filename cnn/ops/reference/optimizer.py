"""Adam in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from cnn.ops.memory import empty


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
    b1, b2 = betas
    mean.lerp_(gradient, 1 - b1)
    square.mul_(b2).addcmul_(gradient, gradient, value=1 - b2)
    deviation = torch.sqrt(square, out=empty(tuple(square.shape), like=square))
    deviation.mul_(correction).add_(eps)
    data.addcmul_(torch.div(mean, deviation, out=deviation), -step)
