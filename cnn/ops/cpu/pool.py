"""Max pools on compiled loops."""

from __future__ import annotations

from torch import Tensor

from cnn.ops.cpu.arrays import lines
from cnn.ops.cpu.kernels import window as kernels
from cnn.ops.memory import empty
from cnn.ops.window import Sizes, Window, winner_dtype


def max_pool(x: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    channels, *size, batch = x.shape
    y = empty((channels, *window.output_size(tuple(size)), batch), like=x)
    winner = empty(tuple(y.shape), like=x, dtype=winner_dtype(window))
    kernels.max_pool(lines(x), *window.on_three_axes(), batch, lines(y), lines(winner))
    return y, winner


def max_pool_backward(dy: Tensor, winner: Tensor, size: Sizes, window: Window) -> Tensor:
    dx = empty((dy.shape[0], *size, dy.shape[-1]), like=dy)
    kernels.max_pool_backward(lines(dy), lines(winner), *window.on_three_axes(), dy.shape[-1], lines(dx))
    return dx
