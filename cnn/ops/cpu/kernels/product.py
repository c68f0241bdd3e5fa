"""The loops of matrix products whose right factor has rows of consecutive values."""

from __future__ import annotations

import functools
from typing import Any

from cnn.ops.cpu.codegen.compiler import helper, kernel
from cnn.ops.cpu.codegen.parallel import parallel_for
from cnn.ops.cpu.codegen.vectors import add_scaled, add_to, width, zeros

DEPTH = 512
"""Products of a value that are summed at once: the rows of both factors stay in the L1 and L2 caches."""

GROUP = 8
"""Blocks of columns in one piece of work."""


@functools.cache
def add_product(rows: int) -> Any:
    """y[r, n] += sum over k of a[r, k] * b[k, n], in blocks of `rows` rows and two vectors of columns.

    A last, partial block of rows starts earlier and skips what the one before has.
    """

    @kernel
    def product(a, row_step, inner_step, b, inner, y, columns):
        # a: any strides; b [inner, columns], y [R, columns]
        R = y.size // columns
        wide = GROUP * 2 * width(y)
        tasks = (R + rows - 1) // rows * ((columns + wide - 1) // wide)
        parallel_for(tasks, add_blocks, (a, (row_step, inner_step), b, inner, y, columns))

    @helper
    def add_blocks(start, stop, a, steps, b, inner, y, columns):
        R, lanes = y.size // columns, width(y)
        wide = GROUP * 2 * lanes
        groups = (columns + wide - 1) // wide
        for task in range(start, stop):
            top = task // groups * rows
            row = min(top, R - rows)
            left = task % groups * wide
            right = min(left + wide, columns)
            for k in range(0, inner, DEPTH):
                end = min(k + DEPTH, inner)
                for n in range(left, right, 2 * lanes):
                    if right - n >= 2 * lanes:
                        add_block(zeros(y, rows, 2), a, steps, b, k, end, y, columns, row, n, top - row, None)
                    else:
                        for m in range(n, right, lanes):
                            count = min(lanes, right - m)
                            add_block(zeros(y, rows, 1), a, steps, b, k, end, y, columns, row, m, top - row, count)

    return product


@helper
def add_block(sums, a, steps, b, first, end, y, columns, row, column, skip, count):
    """Add the products of inner values from `first` to `end` to a block of y."""
    row_step, inner_step = steps
    for k in range(first, end):
        sums = add_scaled(sums, a, row * row_step + k * inner_step, row_step, b, k * columns + column, count)
    add_to(sums, y, row * columns + column, columns, skip, count)


@kernel
def fill_rows(bias, y, columns):
    """y [R, columns] = bias [R], or 0 if that is empty."""
    parallel_for(y.size // columns, fill_some_rows, (bias, y, columns))


@helper
def fill_some_rows(start, stop, bias, y, columns):
    for r in range(start, stop):
        row, value = y[r * columns : (r + 1) * columns], y.dtype.type(0)
        if bias.size:
            value = bias[r]
        for n in range(columns):
            row[n] = value


TILE = 16
"""Rows and columns that are transposed at once: their cache lines stay in the L1 cache."""


@kernel
def transpose(x, y):  # x [R, L] -> y [L, R]
    parallel_for((x.shape[0] + TILE - 1) // TILE, transpose_rows, (x, y))


@helper
def transpose_rows(start, stop, x, y):
    R, L = x.shape
    for r in range(start * TILE, min(stop * TILE, R), TILE):
        for left in range(0, L, TILE):
            for n in range(left, min(left + TILE, L)):
                for i in range(r, min(r + TILE, R)):
                    y[n, i] = x[i, n]
