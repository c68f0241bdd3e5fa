"""Pools: the largest value under a window, and the sum."""

from __future__ import annotations

from torch import Tensor

from cnn.ops.backend import choose
from cnn.ops.checks import check_shape
from cnn.ops.reference import pool as reference
from cnn.ops.window import Sizes, Window


def max_pool(x: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    """y = the largest value in each window, winner = the number of its tap; the first one wins ties, NaN always wins.

    Padding never wins, as if it were -inf. x [C, *S, N] -> y, winner [C, *So, N].
    """
    return choose(reference.max_pool, x)(x, window)


def max_pool_backward(dy: Tensor, winner: Tensor, size: Sizes, window: Window) -> Tensor:
    """dx: each dy goes to the input value that won its window, and nowhere if the winner isn't a tap.

    dy, winner [C, *So, N] -> dx [C, *S, N], S being `size`.
    """
    check_shape(dy, (dy.shape[0], *window.output_size(size), dy.shape[-1]), "dy")
    check_shape(winner, tuple(dy.shape), "winner")
    return choose(reference.max_pool_backward, dy)(dy, winner, size, window)


def window_sum(x: Tensor, window: Window) -> Tensor:
    """y[c, p, n] = sum over k of x[c, p * stride + k * dilation - before, n], zero outside.

    x [C, *S, N] -> y [C, *So, N].
    """
    return choose(reference.window_sum, x)(x, window)


def window_sum_backward(dy: Tensor, size: Sizes, window: Window) -> Tensor:
    """dx[c, i, n] = sum of dy over all positions whose window contains i.

    dy [C, *So, N] -> dx [C, *S, N], S being `size`.
    """
    check_shape(dy, (dy.shape[0], *window.output_size(size), dy.shape[-1]), "dy")
    return choose(reference.window_sum_backward, dy)(dy, size, window)
