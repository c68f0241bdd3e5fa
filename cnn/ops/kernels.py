"""The loops behind `compiled.py`, on numpy arrays, compiled by numba at first use and cached on disk.

Three spatial axes serve one, two and three: missing ones have size 1. The batch is the innermost, contiguous axis, so
every inner loop vectorises however small the image is. Each `prange` writes to places of its own: results don't depend
on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import prange

kernel: Any = numba.njit(cache=True, nogil=True, parallel=True, error_model="numpy")
helper: Any = numba.njit(cache=True, nogil=True, error_model="numpy")

# No fastmath: with it, code just compiled and the same code read from the cache differed in the last bit, so that the
# first start of a program was not repeated by the second. NaN and infinity go through as in torch for the same reason.
# Sums vectorise all the same: they are kept in LANES partial sums, and the order of additions is written down here.
LANES = 64


@helper
def total(row):
    """The sum of a row, [L], in float64."""
    partial = np.zeros(LANES)
    for start in range(0, row.size, LANES):
        block = row[start : start + LANES]
        for k in range(block.size):
            partial[k] += block[k]
    return in_order(partial)


@helper
def centred_product(a, b, centre):
    """The sum of a * (b - centre) over two rows, [L], in float64."""
    partial = np.zeros(LANES)
    for start in range(0, a.size, LANES):
        left, right = a[start : start + LANES], b[start : start + LANES]
        for k in range(left.size):
            partial[k] += left[k] * (right[k] - centre)
    return in_order(partial)


@helper
def centred_square(row, centre):
    """The sum of (row - centre)^2 over a row, [L], in float64."""
    partial = np.zeros(LANES)
    for start in range(0, row.size, LANES):
        block = row[start : start + LANES]
        for k in range(block.size):
            partial[k] += (block[k] - centre) * (block[k] - centre)
    return in_order(partial)


@helper
def in_order(values):
    """The sum of values, [LANES], from the first to the last."""
    result = 0.0
    for k in range(values.size):
        result += values[k]
    return result


@helper
def affine(x, centre, scale, shift, y):
    """y = (x - centre) * scale + shift; rows [L]."""
    for i in range(x.size):
        y[i] = (x[i] - centre) * scale + shift


@helper
def affine_backward(dy, x, centre, offset, slope, scale, dx):
    """dx = scale * (dy - offset - (x - centre) * slope); rows [L]."""
    for i in range(x.size):
        dx[i] = scale * (dy[i] - offset - (x[i] - centre) * slope)


@kernel
def batch_norm(x, weight, bias, eps, y, mean, var):  # x, y [C, L]; weight, bias, mean, var [C]
    C, L = x.shape
    for c in prange(C):
        mean[c] = total(x[c]) / L
        var[c] = centred_square(x[c], mean[c]) / L
        scale = x.dtype.type(weight[c] / np.sqrt(var[c] + eps))
        affine(x[c], mean[c], scale, bias[c], y[c])


@kernel
def batch_norm_backward(dy, x, mean, rstd, weight, dx, dweight, dbias):  # dy, x, dx [C, L]; the others [C]
    C, L = x.shape
    for c in prange(C):
        dbias[c] = total(dy[c])
        dweight[c] = centred_product(dy[c], x[c], mean[c]) * rstd[c]
        offset = x.dtype.type(dbias[c] / L)
        slope = x.dtype.type(dweight[c] * rstd[c] / L)
        affine_backward(dy[c], x[c], mean[c], offset, slope, weight[c] * rstd[c], dx[c])


@kernel
def relu(x, y):  # x, y [L]
    zero = x.dtype.type(0)
    for i in prange(x.size):
        y[i] = zero if x[i] < zero else x[i]


@kernel
def relu_backward(dy, y, dx):  # dy, y, dx [L]
    zero = dy.dtype.type(0)
    for i in prange(dy.size):
        dx[i] = zero if y[i] <= zero else dy[i]
