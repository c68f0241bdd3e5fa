"""The loops of convolutions: products of weights with the values under a window, without columns in between.

Arrays are flat and contiguous, and of one dtype. The outer functions make the kernel for blocks of a given size.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from cnn.ops.cpu.codegen.compiler import helper, kernel
from cnn.ops.cpu.codegen.parallel import parallel_for
from cnn.ops.cpu.codegen.vectors import (
    add_products,
    add_scaled,
    add_totals,
    repeated,
    store,
    width,
    will_load,
    will_store,
    zeros,
)
from cnn.ops.cpu.kernels.sums import total
from cnn.ops.cpu.kernels.window import add, clear, copy

RUN = 64
"""Values of a channel in a run of positions, if a position doesn't have as many: a few vectors."""

EXAMPLES = 128
"""All positions are computed for this many examples before the next ones, so that what is under a window stays in the
L2 cache. A run of several positions is computed at once."""
assert RUN <= EXAMPLES


@functools.cache
def gather_products(rows: int) -> Any:
    """y[o, p, n] = bias[o] + sum over the listed (p, s, k) and o's channels c of weight[o, c, k] * x[c, s, n].

    Outputs are computed in blocks of `rows`; a last, partial block starts earlier and repeats some of the one before.
    Positions are computed in runs, in which each reads the places after those of the one before: as a run's values of a
    channel are consecutive, vectors are filled however few examples there are. Of many examples, some are computed at
    all positions before the next ones.
    """

    @kernel
    def gather(weight, strides, bias, shape, runs, x, x_step, N, y):
        # weight: strides of output, channel and tap; bias [G outputs], or empty; x [G C places N], x_step = places N,
        # y [G outputs positions N]; shape: G, outputs, C, K
        G, outputs, C, K = shape
        B, count = (outputs + rows - 1) // rows, runs[0].size - 1
        packed = np.empty(G * B * K * C * rows, x.dtype)  # [G, B, K, C, rows]
        shift = np.zeros(G * outputs, x.dtype)
        copy(bias, shift[: bias.size])
        parallel_for(G * B, pack_blocks, (weight, strides, shape, packed))
        parallel_for(G * count, gather_runs, (shape, shift, packed, runs, x, x_step, N, y))

    @helper
    def pack_blocks(start, stop, weight, strides, shape, packed):
        _, outputs, C, K = shape
        B = (outputs + rows - 1) // rows
        for block in range(start, stop):
            g, b = block // B, block % B
            first = g * outputs * C * K + min(b * rows, outputs - rows) * strides[0]
            pack(weight, strides, first, C, K, packed, block * K * C * rows, rows)

    @helper
    def gather_runs(start, stop, shape, shift, packed, runs, x, x_step, N, y):
        _, outputs, C, K = shape
        starts, firsts, places, taps = runs
        B, count = (outputs + rows - 1) // rows, starts.size - 1
        for left in range(0, N, EXAMPLES):
            for task in range(start, stop):
                g, run = task // count, task % count
                values = (firsts[run + 1] - firsts[run]) * N
                right = min(left + EXAMPLES, values)
                first, end = starts[run], starts[run + 1]
                ahead = 0 if end == places.size else (places[end] - places[first]) * N
                listed = places, taps, first, end, ahead
                for b in range(B):
                    o = g * outputs + min(b * rows, outputs - rows)
                    weights = packed, (g * B + b) * K * C * rows, C * rows, rows
                    source = x, g * C * x_step, x_step, N
                    target = y, (o * firsts[count] + firsts[run]) * N, firsts[count] * N
                    gather_block(weights, listed, shift, o, source, target, left, right)

    @helper
    def gather_block(weights, listed, shift, o, source, target, left, right):
        """The values from `left` to `right` of a block of outputs, at one run."""
        (x, from_x, x_step, N), (y, to_y, y_step) = source, target
        lanes = width(x)
        pairs = left + (right - left) // (2 * lanes) * (2 * lanes)
        for n in range(left, pairs, 2 * lanes):
            sums = repeated(shift, o, x, rows, 2)
            will_store(sums, y, to_y + n, y_step)
            sums = add_gathered(sums, weights, listed, x, from_x + n, x_step, N, None)
            store(sums, y, to_y + n, y_step, None)
        for n in range(pairs, right, lanes):
            rest = repeated(shift, o, x, rows, 1)
            if right - n >= lanes:
                rest = add_gathered(rest, weights, listed, x, from_x + n, x_step, N, None)
                store(rest, y, to_y + n, y_step, None)
            else:
                rest = add_gathered(rest, weights, listed, x, from_x + n, x_step, N, right - n)
                store(rest, y, to_y + n, y_step, right - n)

    return gather


@helper
def pack(weight, strides, start, C, K, packed, at, rows):
    """Copy a block's weights in the order of their use, [K, C, rows]."""
    for k in range(K):
        for c in range(C):
            for r in range(rows):
                packed[at] = weight[start + r * strides[0] + c * strides[1] + k]
                at += 1


@helper
def add_gathered(sums, weights, listed, x, x_at, x_step, N, count):
    """Add the products of all values under the window of a run with the weights of a block of outputs.

    What lies `ahead` is, but at borders, under the window of the next run.
    """
    places, taps, first, end, ahead = listed
    packed, weights_at, tap_step, channel_step = weights
    for m in range(first, end):
        w = weights_at + taps[m] * tap_step
        here = x_at + places[m] * N
        for place in range(here, here + tap_step // channel_step * x_step, x_step):
            will_load(sums, x, place + ahead)
            sums = add_scaled(sums, packed, w, 1, x, place, count)
            w += channel_step
    return sums


@functools.cache
def weight_gradient(rows: int, columns: int) -> Any:
    """dweight[o, c, k] += sum over the listed (p, s) of tap k and examples n of dy[o, p, n] * x[c, s, n].

    And dbias[o] += sum over p, n of dy[o, p, n].

    Chunks of positions are distributed over the parts of `partial`. Each part sums its chunks in order, and the parts
    are added in order, whatever the number of threads. If there are few chunks, each part's blocks of outputs are
    distributed over `splits` tasks too. `rows` and `columns` are the sizes of blocks of outputs and channels; a last,
    partial block starts earlier and skips what the one before has.
    """

    @kernel
    def gradient(starts, runs, chunks, splits, dy, dy_step, x, x_step, N, partial, dweight, dbias):
        # dy [G outputs positions N], dy_step = positions N, x [G C places N], x_step = places N,
        # partial [parts, G, outputs, C, K], dweight [G outputs C K], dbias [G outputs], or empty
        parts = partial.shape[0]
        work = starts, runs, chunks, splits
        parallel_for(parts * splits, add_parts, (work, dy, dy_step, x, x_step, N, partial))
        parallel_for(dweight.size, add_partial_sums, (partial.reshape(parts, -1), dweight))
        parallel_for(dbias.size, add_row_totals, (dy, dy_step, dbias))

    @helper
    def add_parts(start, stop, work, dy, dy_step, x, x_step, N, partial):
        starts, runs, chunks, splits = work
        parts, G, outputs, C, K = partial.shape
        blocks = G * ((outputs + rows - 1) // rows)
        for task in range(start, stop):
            part, split = task // splits, task % splits
            first_block, last_block = split * blocks // splits, (split + 1) * blocks // splits
            for block in range(first_block, last_block):
                clear(partial[part, block % G, block // G * rows : (block // G + 1) * rows])
            result = partial[part].reshape(-1)
            for q in range(part * chunks // parts, (part + 1) * chunks // parts):
                for block in range(first_block, last_block):
                    g, top = block % G, block // G * rows
                    o = min(top, outputs - rows)
                    for left in range(0, C, columns):
                        c = min(left, C - columns)
                        for k in range(K):
                            first, end = starts[q * K + k], starts[q * K + k + 1]
                            from_dy, from_x = (g * outputs + o) * dy_step, (g * C + c) * x_step
                            sums = zeros(x, rows, columns)
                            sums = add_runs(sums, dy, from_dy, dy_step, x, from_x, x_step, runs, first, end, N)
                            to = ((g * outputs + o) * C + c) * K + k
                            add_totals(sums, result, to, C * K, K, top - o, left - c)

    return gradient


@kernel
def add_bias_gradient(dy, dy_step, dbias):
    """dbias[o] += the sum of row o of dy, [O, dy_step]."""
    parallel_for(dbias.size, add_row_totals, (dy, dy_step, dbias))


@helper
def add_partial_sums(start, stop, partial, dweight):
    """dweight += the sum of its parts, in order: partial [parts, L]."""
    target = dweight[start:stop]
    for part in range(partial.shape[0]):
        add(partial[part, start:stop], target)


@helper
def add_row_totals(start, stop, dy, dy_step, dbias):
    """dbias[o] += the sum of row o of dy."""
    for o in range(start, stop):
        dbias[o] += total(dy[o * dy_step : (o + 1) * dy_step])


@helper
def add_runs(sums, dy, dy_at, dy_step, x, x_at, x_step, runs, first, end, N):
    """Add some runs of one tap: dy of a block of outputs times x of a block of channels, lane by lane."""
    positions, places, counts = runs
    lanes = width(x)
    for m in range(first, end):
        from_dy, from_x = dy_at + positions[m] * N, x_at + places[m] * N
        length = counts[m] * N
        whole = length // lanes * lanes
        for i in range(0, whole, lanes):
            sums = add_products(sums, dy, from_dy + i, dy_step, x, from_x + i, x_step, None)
        if whole < length:
            sums = add_products(sums, dy, from_dy + whole, dy_step, x, from_x + whole, x_step, length - whole)
    return sums
