"""Convolution without columns, on compiled kernels.

The outputs of a position are summed in registers over all values under its window: a vector of examples of one input
value times one weight for each of several outputs. The batch is the last axis, so these vectors are contiguous in x,
and nothing is copied. The input's gradient is the same with positions and places swapped (docs/convolution.md). The
padding is never visited: an infinite weight isn't multiplied by zeros there.
"""

from __future__ import annotations

import functools

from torch import Tensor

from cnn.ops.cpu import gather_lists
from cnn.ops.cpu.arrays import flat
from cnn.ops.cpu.codegen.emitter import REGISTERS
from cnn.ops.cpu.kernels.conv import RUN, gather_products, weight_gradient
from cnn.ops.memory import empty
from cnn.ops.window import Sizes, Window

MAX_ROWS = 12 if REGISTERS == 32 else 6
"""Rows of a block of products, of two vectors each, that leave registers for their factors."""

SUMMED_AT_ONCE = 1024
"""Values of a channel in one chunk of the weight's gradient: a few channels of x and dy stay in the L1 cache."""


TASKS = 16
"""The number of pieces of work on a weight's gradient, whatever the number of threads."""

MANY_WEIGHTS = 1 << 16
"""With this many weights, partial sums are large, and half as many are used."""


def conv(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window, groups: int) -> Tensor:
    size, batch = tuple(x.shape[1:-1]), x.shape[-1]
    y = empty((weight.shape[0], *window.output_size(size), batch), like=x)
    outputs, channels, taps = weight.shape[0] // groups, weight.shape[1], window.tap_count
    strides = channels * taps, taps
    shape = groups, outputs, channels, taps
    _gather(weight, strides, bias, shape, gather_lists.by_position(window, size, _run(batch)), x, y)
    return y


def conv_backward_input(dy: Tensor, weight: Tensor, size: Sizes, window: Window, groups: int) -> Tensor:
    outputs, channels, taps = weight.shape[0] // groups, weight.shape[1], window.tap_count
    batch = dy.shape[-1]
    dx = empty((groups * channels, *size, batch), like=dy)
    strides = taps, channels * taps
    shape = groups, channels, outputs, taps
    _gather(weight, strides, None, shape, gather_lists.by_place(window, size, _run(batch)), dy, dx)
    return dx


def _run(batch: int) -> int:
    """How many positions are computed together, so that a few vectors are filled."""
    return max(1, RUN // max(batch, 1))


def _gather(
    weight: Tensor,
    strides: tuple[int, int],
    bias: Tensor | None,
    shape: tuple[int, int, int, int],
    runs: gather_lists.GatherList,
    x: Tensor,
    y: Tensor,
) -> None:
    """y from x. shape: groups, outputs and channels per group, taps."""
    x_flat = flat(x)
    kernel = gather_products(rows_of_blocks(shape[1]))
    shift = x_flat[:0] if bias is None else flat(bias)
    sizes = x_flat.size // x.shape[0], x.shape[-1]
    kernel(flat(weight), strides, shift, shape, tuple(runs), x_flat, *sizes, flat(y))


def add_conv_backward_weight(
    x: Tensor, dy: Tensor, window: Window, dweight: Tensor, groups: int, dbias: Tensor | None
) -> None:
    size = tuple(x.shape[1:-1])
    x_flat, dy_flat = flat(x), flat(dy)
    outputs, channels = dweight.shape[0] // groups, dweight.shape[1]
    starts, positions, places, counts, chunks = gather_lists.by_tap(window, size, _chunk(dy))
    parts = max(1, min(chunks, TASKS if dweight.numel() < MANY_WEIGHTS else TASKS // 2))
    partial = empty((parts, groups, outputs, channels, window.tap_count), like=x)
    kernel = weight_gradient(*_tile(outputs, channels))
    kernel(
        starts,
        (positions, places, counts),
        chunks,
        -(-TASKS // parts),
        dy_flat,
        dy_flat.size // dy.shape[0],
        x_flat,
        x_flat.size // x.shape[0],
        x.shape[-1],
        partial.numpy(),
        flat(dweight),
        x_flat[:0] if dbias is None else flat(dbias),
    )


def add_row_products(a: Tensor, b: Tensor, y: Tensor) -> None:
    """y += a @ b^T: sums along rows of consecutive values, as of a weight's gradient. a [R, L], b [C, L], y [R, C]."""
    (rows, length), columns = a.shape, len(b)
    partial = empty((1, 1, rows, columns, 1), like=y)
    starts, *runs, chunks = gather_lists.one_run(length)
    kernel = weight_gradient(*_tile(rows, columns))
    none = flat(a)[:0]
    kernel(starts, tuple(runs), chunks, TASKS, flat(a), length, flat(b), length, 1, partial.numpy(), flat(y), none)


@functools.cache
def _tile(outputs: int, channels: int) -> tuple[int, int]:
    """Rows and columns of the blocks of a weight's gradient: as square as possible, and fitting the registers."""
    largest = 5 if REGISTERS == 32 else 3
    rows, columns = _best(outputs, largest), _best(channels, largest)
    if columns == 1:
        rows = _best(outputs, 2 * largest)
    elif rows == 1:
        columns = _best(channels, 2 * largest)
    return rows, columns


def rows_of_blocks(outputs: int) -> int:
    """The number of outputs that are computed at once, with two vectors each."""
    return _best(outputs, MAX_ROWS)


@functools.cache
def _best(count: int, largest: int) -> int:
    """The size of blocks that cover `count` with the least work: their products, and two loads per block."""
    return min(range(1, max(1, min(count, largest)) + 1), key=lambda size: -(-count // size) * (size + 2))


def _chunk(dy: Tensor) -> int:
    """The number of positions that are summed at once: whole lines if possible."""
    positions, line = SUMMED_AT_ONCE // max(dy.shape[-1], 1), dy.shape[-2]
    return max(1, positions // line * line if positions > line else positions)
