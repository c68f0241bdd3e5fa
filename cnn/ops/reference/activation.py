"""ReLU and leaky ReLU in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor


def relu(x: Tensor) -> Tensor:
    return x.clamp(min=0)


def relu_backward(dy: Tensor, y: Tensor) -> Tensor:
    return dy.masked_fill(y <= 0, 0)


def leaky_relu(x: Tensor, slope: float) -> Tensor:
    return torch.where(x > 0, x, x * slope)


def leaky_relu_backward(dy: Tensor, x: Tensor, slope: float) -> Tensor:
    return torch.where(x > 0, dy, dy * slope)
