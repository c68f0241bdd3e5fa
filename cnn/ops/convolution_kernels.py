"""The loops of convolutions: products of weights with what a window meets, and no columns in between.

Everything is float32 or float64 of one kind, flat and contiguous. Each function makes the kernel for blocks of a given
size; numba compiles it at first use and keeps it on disk.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import prange

from cnn.ops.kernels import helper, kernel, total
from cnn.ops.vectors import add_products, add_scaled, add_totals, repeated, store, zeros


def _block_of_products(rows: int, columns: int) -> Any:
    """The loop over everything that one position meets, for `rows` outputs and `columns` vectors of examples."""

    @helper
    def block_of_products(weight, bias, block, channels, met, first, end, x, x_at, x_step, N, y, y_at, y_step):
        others, taps = met
        sums = repeated(bias, block * rows, x, rows, columns)
        for m in range(first, end):
            w = (block * (weight.size // bias.size) + taps[m] * channels) * rows
            here = x_at + others[m] * N
            for c in range(channels):
                sums = add_scaled(sums, weight, w + c * rows, x, here + c * x_step)
        store(sums, y, y_at, y_step)

    return block_of_products


@functools.cache
def gather_products(rows: int, lanes: int) -> Any:
    """y[o, p, n] = bias[o] + sum over the meetings (p, s, k) and o's channels c of weight[o, c, k] * x[c, s, n].

    Outputs are computed in blocks of `rows`: a last block reaches back into the one before and repeats what that did.
    So do the last examples where 2 * `lanes` doesn't divide their number N, which is at least `lanes`.
    """
    double, single = _block_of_products(rows, 2), _block_of_products(rows, 1)

    @kernel
    def gather(weight, strides, bias, shape, starts, met, x, x_step, N, y):
        # weight: strides of output, channel and tap; bias [G outputs], or empty; x [G C places N], x_step = places N,
        # y [G outputs positions N]; shape: G, outputs, C, K
        G, outputs, C, K = shape
        B, positions = (outputs + rows - 1) // rows, starts.size - 1
        y_step = positions * N
        packed_weight = np.empty(G * B * K * C * rows, x.dtype)  # [G, B, K, C, rows]
        packed_bias = np.zeros(G * B * rows, x.dtype)  # [G, B, rows]
        for block in prange(G * B):
            g, b = block // B, block % B
            o = min(b * rows, outputs - rows)
            pack(weight, strides, g * outputs * C * K + o * strides[0], C, K, packed_weight, block, rows)
            if bias.size:
                packed_bias[block * rows : (block + 1) * rows] = bias[g * outputs + o : g * outputs + o + rows]
        for task in prange(G * positions):
            g, p = task // positions, task % positions
            for b in range(B):
                o = g * outputs + min(b * rows, outputs - rows)
                of_block = packed_weight, packed_bias, g * B + b, C, met, starts[p], starts[p + 1]
                pairs = N // (2 * lanes)
                for i in range(pairs):
                    n = i * 2 * lanes
                    double(*of_block, x, g * C * x_step + n, x_step, N, y, (o * positions + p) * N + n, y_step)
                for i in range(2 * pairs, (N + lanes - 1) // lanes):
                    n = min(i * lanes, N - lanes)
                    single(*of_block, x, g * C * x_step + n, x_step, N, y, (o * positions + p) * N + n, y_step)

    return gather


@helper
def pack(weight, strides, start, C, K, packed, block, rows):
    """Lay a block's weights out in the order of their use, [K, C, rows]."""
    at = block * K * C * rows
    for k in range(K):
        for c in range(C):
            for r in range(rows):
                packed[at] = weight[start + r * strides[0] + c * strides[1] + k]
                at += 1


def _product_of_runs(rows: int, columns: int, lanes: int) -> Any:
    """The loop over some runs of one tap, for `rows` outputs and `columns` channels."""

    @helper
    def product_of_runs(dy, dy_at, dy_step, x, x_at, x_step, runs, first, end, N):
        positions, places, counts = runs
        sums = zeros(x, rows, columns)
        for m in range(first, end):
            from_dy, from_x = dy_at + positions[m] * N, x_at + places[m] * N
            length = counts[m] * N
            whole = length // lanes * lanes
            for i in range(0, whole, lanes):
                sums = add_products(sums, dy, from_dy + i, dy_step, x, from_x + i, x_step, None)
            if whole < length:
                sums = add_products(sums, dy, from_dy + whole, dy_step, x, from_x + whole, x_step, length - whole)
        return sums

    return product_of_runs


@functools.cache
def weight_gradient(rows: int, columns: int, lanes: int) -> Any:
    """dweight[o, c, k] += sum over the meetings (p, s) of tap k and examples n of dy[o, p, n] * x[c, s, n].

    And dbias[o] += sum over p, n of dy[o, p, n].
    The chunks of positions are dealt out to the parts of `partial`: each part's sum is made in the order of its chunks,
    and the parts are added in their order, whatever the number of threads. `rows` and `columns` are the blocks of
    outputs and channels; a last block that reaches back into the one before leaves out what that has.
    """
    product_of_runs = _product_of_runs(rows, columns, lanes)

    @kernel
    def gradient(starts, runs, chunks, dy, dy_step, x, x_step, N, partial, dweight, dbias):
        # dy [G outputs positions N], dy_step = positions N, x [G C places N], x_step = places N,
        # partial [parts, G, outputs, C, K], dweight [G outputs C K],
        # dbias [G outputs], or empty
        parts, G, outputs, C, K = partial.shape
        share = (chunks + parts - 1) // parts
        for part in prange(parts):
            partial[part] = 0
            result = partial[part].reshape(-1)
            for q in range(part * share, min(chunks, (part + 1) * share)):
                for block in range(G * ((outputs + rows - 1) // rows)):
                    g, start = block % G, block // G * rows
                    o = min(start, outputs - rows)
                    for left in range(0, C, columns):
                        c = min(left, C - columns)
                        for k in range(K):
                            first, end = starts[q * K + k], starts[q * K + k + 1]
                            from_dy, from_x = (g * outputs + o) * dy_step, (g * C + c) * x_step
                            sums = product_of_runs(dy, from_dy, dy_step, x, from_x, x_step, runs, first, end, N)
                            add_totals(sums, result, ((g * outputs + o) * C + c) * K + k, C * K, K, start - o, left - c)
        flat = partial.reshape(parts, -1)
        for i in prange(dweight.size):
            for part in range(parts):
                dweight[i] += flat[part, i]
        for o in prange(dbias.size):
            dbias[o] += total(dy[o * dy_step : (o + 1) * dy_step])

    return gradient
