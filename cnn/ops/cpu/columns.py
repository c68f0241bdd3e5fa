"""Columns on compiled loops."""

from __future__ import annotations

from torch import Tensor

from cnn.ops.cpu.arrays import lines, rows
from cnn.ops.cpu.kernels import window as kernels
from cnn.ops.memory import empty
from cnn.ops.window import Sizes, Window


def im2col(x: Tensor, window: Window) -> Tensor:
    channels, *size, batch = x.shape
    columns = empty((channels, *window.kernel, *window.output_size(tuple(size)), batch), like=x)
    kernels.im2col(lines(x), *window.on_three_axes(), batch, rows(columns))
    return columns


def col2im(columns: Tensor, size: Sizes, window: Window) -> Tensor:
    batch = columns.shape[-1]
    dx = empty((columns.shape[0], *size, batch), like=columns)
    kernels.col2im(rows(columns), *window.on_three_axes(), batch, lines(dx))
    return dx
