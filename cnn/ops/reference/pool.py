"""Sums over windows: what average pooling is made of, a pass over memory for each tap."""

from __future__ import annotations

from torch import Tensor

from cnn.ops.memory import empty
from cnn.ops.padding import CHANNELS, inside, pad, room
from cnn.ops.window import Sizes, Window


def window_sum(x: Tensor, window: Window) -> Tensor:
    """y[c, p, n] = sum over k of x[c, p * stride + k * dilation - before, n], zero outside.

    x [C, *S, N] -> y [C, *So, N].
    """
    output_size = window.output_size(tuple(x.shape[1:-1]))
    padded = pad(x, window, fill=0)
    y = empty((x.shape[0], *output_size, x.shape[-1]), like=x).zero_()
    for tap in window.taps():
        y += padded[CHANNELS + window.reach(tap, output_size)]
    return y


def window_sum_backward(dy: Tensor, size: Sizes, window: Window) -> Tensor:
    """dx[c, i, n] = sum of dy over all positions whose window holds i.

    dy [C, *So, N] -> dx [C, *S, N], S being `size`.
    """
    padded = empty((dy.shape[0], *room(size, window), dy.shape[-1]), like=dy).zero_()
    for tap in window.taps():
        padded[CHANNELS + window.reach(tap, window.output_size(size))] += dy
    dx = padded[CHANNELS + inside(size, window)]
    return dx if dx.is_contiguous() else empty(tuple(dx.shape), like=dx).copy_(dx)
