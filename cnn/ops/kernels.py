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
def first_inside(tap, stride, padding):
    """The first output position whose input, position * stride + tap - padding, is not before the input's start."""
    return max(0, -((tap - padding) // stride))


@helper
def end_inside(tap, stride, padding, size, count):
    """One past the last output position whose input is not beyond the input's end."""
    return max(0, min(count, (size - 1 - tap + padding) // stride + 1))


@helper
def clear(target):
    """target = 0."""
    target[:] = 0


# Loops count from 0 over slices: an index that might be negative is checked for wrap-around, and nothing vectorises.


@helper
def copy(source, target):
    """target = the start of source; both flat."""
    for i in range(target.size):
        target[i] = source[i]


@helper
def add(source, target):
    """The start of target += source; both flat."""
    for i in range(source.size):
        target[i] += source[i]


@helper
def gather(source, target, tap, stride, padding, N):
    """target[r] = source[r * stride + tap - padding], zero outside; source [W N], target [Wo N], both flat."""
    W, Wo = source.size // N, target.size // N
    first = min(first_inside(tap, stride, padding), Wo)
    end = max(end_inside(tap, stride, padding, W, Wo), first)
    target[: first * N] = 0
    target[end * N :] = 0
    if stride == 1:
        copy(source[(first + tap - padding) * N :], target[first * N : end * N])
    else:
        for r in range(first, end):
            copy(source[(r * stride + tap - padding) * N :], target[r * N : (r + 1) * N])


@helper
def scatter(source, target, tap, stride, padding, N):
    """target[r * stride + tap - padding] += source[r] where that is inside; source [Wo N], target [W N], both flat."""
    W, Wo = target.size // N, source.size // N
    first = min(first_inside(tap, stride, padding), Wo)
    end = max(end_inside(tap, stride, padding, W, Wo), first)
    if stride == 1:
        add(source[first * N : end * N], target[(first + tap - padding) * N :])
    else:
        for r in range(first, end):
            add(source[r * N : (r + 1) * N], target[(r * stride + tap - padding) * N :])


@helper
def unfold_row(x, tap, stride, padding, N, columns):
    """Everything that one tap meets: x [D, H, W N] -> columns [Do, Ho, Wo N]."""
    D, H, _ = x.shape
    for p in range(columns.shape[0]):
        d = p * stride[0] + tap[0] - padding[0]
        for q in range(columns.shape[1]):
            h = q * stride[1] + tap[1] - padding[1]
            if 0 <= d < D and 0 <= h < H:
                gather(x[d, h], columns[p, q], tap[2], stride[2], padding[2], N)
            else:
                clear(columns[p, q])


@helper
def fold_row(columns, tap, stride, padding, N, dx):
    """The adjoint of unfold_row, added: columns [Do, Ho, Wo N] -> dx [D, H, W N]."""
    D, H, _ = dx.shape
    for p in range(columns.shape[0]):
        d = p * stride[0] + tap[0] - padding[0]
        for q in range(columns.shape[1]):
            h = q * stride[1] + tap[1] - padding[1]
            if 0 <= d < D and 0 <= h < H:
                scatter(columns[p, q], dx[d, h], tap[2], stride[2], padding[2], N)


@kernel
def im2col(x, kernel_size, stride, padding, N, columns):  # x [C, D, H, W N] -> columns [C Kd Kh Kw, Do, Ho, Wo N]
    _, Kh, Kw = kernel_size
    taps = columns.shape[0] // x.shape[0]
    for row in prange(columns.shape[0]):
        c = row // taps
        k = row % taps
        tap = (k // (Kh * Kw), k // Kw % Kh, k % Kw)
        unfold_row(x[c], tap, stride, padding, N, columns[row])


@kernel
def col2im(columns, kernel_size, stride, padding, N, dx):  # columns [C Kd Kh Kw, Do, Ho, Wo N] -> dx [C, D, H, W N]
    _, Kh, Kw = kernel_size
    taps = columns.shape[0] // dx.shape[0]
    for c in prange(dx.shape[0]):
        clear(dx[c])
        for k in range(taps):
            tap = (k // (Kh * Kw), k // Kw % Kh, k % Kw)
            fold_row(columns[c * taps + k], tap, stride, padding, N, dx[c])


@helper
def keep_larger(candidate, tap, best, winner):
    """best = max(best, the start of candidate), winner = tap where that changed it; all flat. NaN beats everything."""
    for n in range(best.size):
        a = candidate[n]
        better = a > best[n] or a != a
        best[n] = a if better else best[n]
        winner[n] = tap if better else winner[n]


@helper
def add_where_won(gradient, winner, tap, target):
    """The start of target += gradient where winner = tap; all flat."""
    zero = gradient.dtype.type(0)
    for n in range(gradient.size):
        target[n] += gradient[n] if winner[n] == tap else zero


@helper
def pool_line(line, w, tap, stride, N, best, winner):
    """One tap along one output line: line [W N] -> best, winner [Wo N]."""
    if stride == 1:
        keep_larger(line[w * N :], tap, best, winner)
    else:
        for r in range(best.size // N):
            here = slice(r * N, (r + 1) * N)
            keep_larger(line[(r * stride + w) * N :], tap, best[here], winner[here])


@helper
def unpool_line(gradient, winner, w, tap, stride, N, line):
    """The gradient of one tap along one output line: gradient, winner [Wo N] -> line [W N]."""
    if stride == 1:
        add_where_won(gradient, winner, tap, line[w * N :])
    else:
        for r in range(gradient.size // N):
            here = slice(r * N, (r + 1) * N)
            add_where_won(gradient[here], winner[here], tap, line[(r * stride + w) * N :])


@helper
def pool_row(x, p, q, kernel_size, stride, N, y, winner):
    """The output line at depth p and height q: x [D, H, W N] -> y, winner [Wo N]."""
    y[:] = -np.inf
    winner[:] = 0
    tap = 0
    for u in range(kernel_size[0]):
        for v in range(kernel_size[1]):
            line = x[p * stride[0] + u, q * stride[1] + v]
            for w in range(kernel_size[2]):
                pool_line(line, w, winner.dtype.type(tap), stride[2], N, y, winner)
                tap += 1


@helper
def unpool_row(dy, winner, p, q, kernel_size, stride, N, dx):
    """The gradient of one output line, added: dy, winner [Wo N] -> dx [D, H, W N]."""
    tap = 0
    for u in range(kernel_size[0]):
        for v in range(kernel_size[1]):
            line = dx[p * stride[0] + u, q * stride[1] + v]
            for w in range(kernel_size[2]):
                unpool_line(dy, winner, w, winner.dtype.type(tap), stride[2], N, line)
                tap += 1


@kernel
def max_pool(x, kernel_size, stride, N, y, winner):  # x [C, D, H, W N] -> y, winner [C, Do, Ho, Wo N]
    C, Do, Ho, _ = y.shape
    for row in prange(C * Do * Ho):
        c = row // (Do * Ho)
        p = row // Ho % Do
        q = row % Ho
        pool_row(x[c], p, q, kernel_size, stride, N, y[c, p, q], winner[c, p, q])


@kernel
def max_pool_backward(dy, winner, kernel_size, stride, N, dx):  # dy, winner [C, Do, Ho, Wo N] -> dx [C, D, H, W N]
    C, Do, Ho, _ = dy.shape
    for c in prange(C):
        clear(dx[c])
        for p in range(Do):
            for q in range(Ho):
                unpool_row(dy[c, p, q], winner[c, p, q], p, q, kernel_size, stride, N, dx[c])


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
