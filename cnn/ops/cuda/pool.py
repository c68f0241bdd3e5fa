"""Pools in Triton."""

from __future__ import annotations

import math

from torch import Tensor

from cnn.ops.cuda.geometry import constants
from cnn.ops.cuda.kernels import pool as kernels
from cnn.ops.cuda.launching import blocks, launch
from cnn.ops.memory import empty
from cnn.ops.window import Sizes, Window, winner_dtype

BLOCK = 256


def max_pool(x: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    channels, *size, batch = x.shape
    y = empty((channels, *window.output_size(tuple(size)), batch), like=x)
    winner = empty(tuple(y.shape), like=x, dtype=winner_dtype(window))
    geometry = constants(window, tuple(size), tuple(y.shape[1:-1]))
    lengths = math.prod(x.shape[1:]), batch
    launch(kernels.max_pool, _grid(y), x.contiguous(), y, winner, *lengths, *geometry, BLOCK)
    return y, winner


def max_pool_backward(dy: Tensor, winner: Tensor, size: Sizes, window: Window) -> Tensor:
    dx = empty((dy.shape[0], *size, dy.shape[-1]), like=dy)
    geometry = constants(window, size, tuple(dy.shape[1:-1]))
    lengths = math.prod(dx.shape[1:]), dx.shape[-1]
    launch(kernels.max_pool_backward, _grid(dx), dy.contiguous(), winner.contiguous(), dx, *lengths, *geometry, BLOCK)
    return dx


def window_sum(x: Tensor, window: Window) -> Tensor:
    channels, *size, batch = x.shape
    y = empty((channels, *window.output_size(tuple(size)), batch), like=x)
    geometry = constants(window, tuple(size), tuple(y.shape[1:-1]))
    launch(kernels.window_sum, _grid(y), x.contiguous(), y, math.prod(x.shape[1:]), batch, *geometry, BLOCK)
    return y


def window_sum_backward(dy: Tensor, size: Sizes, window: Window) -> Tensor:
    dx = empty((dy.shape[0], *size, dy.shape[-1]), like=dy)
    geometry = constants(window, size, tuple(dy.shape[1:-1]))
    lengths = math.prod(dx.shape[1:]), dx.shape[-1]
    launch(kernels.window_sum_backward, _grid(dx), dy.contiguous(), dx, *lengths, *geometry, BLOCK)
    return dx


def _grid(values: Tensor) -> tuple[int, int]:
    """Blocks, then channels: CUDA allows 65,535 of the second."""
    return blocks(math.prod(values.shape[1:]), BLOCK), len(values)
