"""Batch norm, max pool and ReLU in Triton, in one pass over memory each way."""

from __future__ import annotations

from torch import Tensor

from cnn.ops.cuda.norm import differentiate, normalise
from cnn.ops.values import Gradients, PoolReLU, Route, Running


def norm_pool_relu(
    x: Tensor, weight: Tensor, bias: Tensor, running: Running, after: PoolReLU, *, training: bool
) -> tuple[Tensor, Tensor, Route]:
    return normalise(x, weight, bias, running, after, training=training)


def norm_pool_relu_backward(
    dy: Tensor, x: Tensor, statistics: Tensor, weight: Tensor, gradients: Gradients | None, route: Route
) -> Tensor:
    return differentiate(dy, x, statistics, weight, gradients, route)
