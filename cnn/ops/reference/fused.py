"""Fused operations, composed of the plain ones, each of which runs on the fastest backend that has it."""

from __future__ import annotations

from torch import Tensor

from cnn.ops.activation import relu, relu_backward
from cnn.ops.norm import batch_norm, batch_norm_backward
from cnn.ops.pool import max_pool, max_pool_backward
from cnn.ops.values import Gradients, PoolReLU, Route, Running
from cnn.ops.window import Sizes


def norm_pool_relu(
    x: Tensor, weight: Tensor, bias: Tensor, running: Running, after: PoolReLU, *, training: bool
) -> tuple[Tensor, Tensor, Route]:
    y, statistics = batch_norm(x, weight, bias, running, training=training)
    if after.window is None:
        y = relu(y)
        return y, statistics, Route(y, None)
    y, winner = max_pool(y, after.window)
    if after.rectify:
        winner = winner.masked_fill(y <= 0, after.window.tap_count)
        y = relu(y)
    return y, statistics, Route(winner, after.window)


def norm_pool_relu_backward(
    dy: Tensor, x: Tensor, statistics: Tensor, weight: Tensor, gradients: Gradients | None, route: Route
) -> Tensor:
    g = pool_relu_backward(dy, route, tuple(x.shape[1:-1]))
    return batch_norm_backward(g, x, statistics, weight, gradients)


def pool_relu_backward(dy: Tensor, route: Route, size: Sizes) -> Tensor:
    if route.window is None:
        return relu_backward(dy, route.values)
    return max_pool_backward(dy, route.values, size, route.window)
