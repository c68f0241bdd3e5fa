"""Columns in plain torch: one copy per tap."""

from __future__ import annotations

from torch import Tensor

from cnn.ops.memory import empty
from cnn.ops.padding import CHANNELS, inside, pad, padded_size
from cnn.ops.window import Sizes, Window


def im2col(x: Tensor, window: Window) -> Tensor:
    channels, *size, batch = x.shape
    output_size = window.output_size(tuple(size))
    padded = pad(x, window, fill=0)
    columns = empty((channels, *window.kernel, *output_size, batch), like=x)
    for tap in window.taps():
        columns[CHANNELS + tap] = padded[CHANNELS + window.reach(tap, output_size)]
    return columns


def col2im(columns: Tensor, size: Sizes, window: Window) -> Tensor:
    channels, batch = columns.shape[0], columns.shape[-1]
    output_size = window.output_size(size)
    padded = columns.new_zeros((channels, *padded_size(size, window), batch))
    for tap in window.taps():
        padded[CHANNELS + window.reach(tap, output_size)] += columns[CHANNELS + tap]
    return padded[CHANNELS + inside(size, window)].contiguous()
