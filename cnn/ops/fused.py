"""Batch norm with the max pool, the ReLU, or both, that follow it, in one pass over memory.

Max pool and ReLU commute, so this covers either order. Derived in docs/normalisation.md.
"""

from __future__ import annotations

from torch import Tensor

from cnn.ops.backend import choose
from cnn.ops.checks import check_shape
from cnn.ops.norm import check_batch_norm, check_batch_norm_backward
from cnn.ops.reference import fused as reference
from cnn.ops.values import Gradients, PoolReLU, Route, Running
from cnn.ops.window import Sizes


def norm_pool_relu(
    x: Tensor, weight: Tensor, bias: Tensor, running: Running, after: PoolReLU, *, training: bool
) -> tuple[Tensor, Tensor, Route]:
    """y = relu(max_pool(batch_norm(x))), without the pool or the ReLU if `after` has none.

    x [C, *S, N], the others as in `batch_norm` -> y [C, *So, N], statistics [2, C], and the route of gradients back.
    """
    if after.window is None and not after.rectify:
        raise ValueError("neither a pool nor a ReLU follows: use batch_norm")
    check_batch_norm(x, weight, bias, running, training=training)
    return choose(reference.norm_pool_relu, x)(x, weight, bias, running, after, training=training)


def norm_pool_relu_backward(
    dy: Tensor, x: Tensor, statistics: Tensor, weight: Tensor, gradients: Gradients | None, route: Route
) -> Tensor:
    """dx of norm_pool_relu in training: dy goes back along the route, then as in `batch_norm_backward`.

    dy [C, *So, N], x, dx [C, *S, N], the others as there.
    """
    check_shape(dy, tuple(route.values.shape), "dy")
    check_batch_norm_backward(x, statistics, weight, gradients)
    return choose(reference.norm_pool_relu_backward, x)(dy, x, statistics, weight, gradients, route)


def pool_relu_backward(dy: Tensor, route: Route, size: Sizes) -> Tensor:
    """The gradient before a max pool and a ReLU: dy where y > 0, at the place that won its window, else 0.

    dy [C, *So, N] -> [C, *S, N], S being `size`.
    """
    return choose(reference.pool_relu_backward, dy)(dy, route, size)
