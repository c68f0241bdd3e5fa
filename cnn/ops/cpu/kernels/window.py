"""The loops of convolutions and pools: windows that move over the spatial axes.

Along an axis, tap k at position p reads the input at p * stride + offset - padding, with offset = k * dilation.
"""

from __future__ import annotations

import numpy as np

from cnn.ops.cpu.codegen.arithmetic import plus, where_equal
from cnn.ops.cpu.codegen.compiler import helper, kernel
from cnn.ops.cpu.codegen.parallel import parallel_for
from cnn.ops.cpu.codegen.vectors import load, store, width


@helper
def first_inside(tap, stride, padding):
    """The first output position at which the tap is not before the start of the input."""
    return max(0, -((tap - padding) // stride))


@helper
def end_inside(tap, stride, padding, size, count):
    """One past the last output position at which the tap is not beyond the end of the input."""
    return max(0, min(count, (size - 1 - tap + padding) // stride + 1))


@helper
def clear(target):
    """target = 0; of any shape."""
    flat = target.reshape(-1)
    for i in range(flat.size):
        flat[i] = 0


# Loops run from 0 over slices: numba checks indices that may be negative for wrap-around, which prevents vectorising.


@helper
def copy(source, target):
    """target = the beginning of source; both flat."""
    for i in range(target.size):
        target[i] = source[i]


@helper
def add(source, target):
    """The beginning of target += source; both flat."""
    for i in range(source.size):
        target[i] += source[i]


@helper
def offsets(k, kernel_size, dilation):
    """The offset of the k-th tap from the start of the window along each axis."""
    _, Kh, Kw = kernel_size
    return k // (Kh * Kw) * dilation[0], k // Kw % Kh * dilation[1], k % Kw * dilation[2]


@helper
def keep_larger(candidate, tap, best, winner):
    """best = max(best, beginning of candidate), winner = tap where that is new; all flat. NaN always wins."""
    for n in range(best.size):
        a = candidate[n]
        better = a > best[n] or a != a
        best[n] = a if better else best[n]
        winner[n] = tap if better else winner[n]


FEW = 8
"""Examples of which slices cost more than their values."""


@helper
def pool_line(line, offset, tap, stride, padding, N, best, winner):
    """Compare one tap along one output line: line [W N] -> best, winner [Wo N]."""
    W, Wo = line.size // N, best.size // N
    first = first_inside(offset, stride, padding)
    end = end_inside(offset, stride, padding, W, Wo)
    if stride == 1 and first < end:
        here = slice(first * N, end * N)
        keep_larger(line[(first + offset - padding) * N :], tap, best[here], winner[here])
    elif stride > 1 and N >= FEW:
        for r in range(first, end):
            here = slice(r * N, (r + 1) * N)
            keep_larger(line[(r * stride + offset - padding) * N :], tap, best[here], winner[here])
    elif stride > 1:
        for r in range(first, end):
            place = (r * stride + offset - padding) * N
            for i in range(r * N, (r + 1) * N):
                a = line[place + i - r * N]
                better = a > best[i] or a != a
                best[i] = a if better else best[i]
                winner[i] = tap if better else winner[i]


@helper
def unpool_line(gradient, winner, offset, tap, stride, padding, N, line):
    """The gradient of one tap along one output line, added: gradient, winner [Wo N] -> line [W N]."""
    W, Wo, lanes = line.size // N, gradient.size // N, width(line)
    first = first_inside(offset, stride, padding)
    end = max(first, end_inside(offset, stride, padding, W, Wo))
    pieces, length = end - first, N
    if stride == 1:  # what the tap reads is one piece
        pieces, length = min(pieces, 1), pieces * N
    whole, zero = length // lanes * lanes, gradient.dtype.type(0)
    for r in range(first, first + pieces):
        here, place = r * N, (r * stride + offset - padding) * N
        for i in range(0, whole, lanes):
            won = where_equal(load(gradient, here + i, 1), winner, here + i, tap)
            store(plus(load(line, place + i, 1), won), line, place + i, 0, None)
        for i in range(whole, length):
            line[place + i] += gradient[here + i] if winner[here + i] == tap else zero


@helper
def first_tap(position, kernel_size, stride, dilation, padding):
    """The first tap along one axis that, at this output position, is on the input and not in the padding before it."""
    before = padding - position * stride
    return min(max(0, -(-before // dilation)), kernel_size - 1)


@helper
def start_pool(p, q, kernel_size, stride, dilation, padding, N, best, winner):
    """The state before any tap: best is -inf, and the winner is the first tap on the input, if nothing is larger.

    best, winner [Wo N]."""
    for n in range(best.size):
        best[n] = -np.inf
    u = first_tap(p, kernel_size[0], stride[0], dilation[0], padding[0])
    v = first_tap(q, kernel_size[1], stride[1], dilation[1], padding[1])
    for n in range(winner.size):
        winner[n] = (u * kernel_size[1] + v) * kernel_size[2]
    for r in range(best.size // N):
        w = first_tap(r, kernel_size[2], stride[2], dilation[2], padding[2])
        if w == 0:
            break
        for n in range(r * N, (r + 1) * N):
            winner[n] += w


@helper
def pool_row(x, p, q, kernel_size, stride, dilation, padding, N, y, winner):
    """The output line at depth p and height q: x [D, H, W N] -> y, winner [Wo N]."""
    D, H, _ = x.shape
    start_pool(p, q, kernel_size, stride, dilation, padding, N, y, winner)
    for k in range(kernel_size[0] * kernel_size[1] * kernel_size[2]):
        u, v, w = offsets(k, kernel_size, dilation)
        d, h = p * stride[0] + u - padding[0], q * stride[1] + v - padding[1]
        if 0 <= d < D and 0 <= h < H:
            pool_line(x[d, h], w, winner.dtype.type(k), stride[2], padding[2], N, y, winner)


@helper
def unpool_row(dy, winner, p, q, kernel_size, stride, dilation, padding, N, dx):
    """The gradient of one output line, added: dy, winner [Wo N] -> dx [D, H, W N]."""
    D, H, _ = dx.shape
    for k in range(kernel_size[0] * kernel_size[1] * kernel_size[2]):
        u, v, w = offsets(k, kernel_size, dilation)
        d, h = p * stride[0] + u - padding[0], q * stride[1] + v - padding[1]
        if 0 <= d < D and 0 <= h < H:
            unpool_line(dy, winner, w, winner.dtype.type(k), stride[2], padding[2], N, dx[d, h])


@kernel
def max_pool(
    x, kernel_size, stride, dilation, padding, N, y, winner
):  # x [C, D, H, W N] -> y, winner [C, Do, Ho, Wo N]
    C, Do, Ho, _ = y.shape
    parallel_for(C * Do * Ho, pool_rows, (x, kernel_size, stride, dilation, padding, N, y, winner))


@helper
def pool_rows(start, stop, x, kernel_size, stride, dilation, padding, N, y, winner):
    _, Do, Ho, _ = y.shape
    for row in range(start, stop):
        c = row // (Do * Ho)
        p = row // Ho % Do
        q = row % Ho
        pool_row(x[c], p, q, kernel_size, stride, dilation, padding, N, y[c, p, q], winner[c, p, q])


@kernel
def max_pool_backward(
    dy, winner, kernel_size, stride, dilation, padding, N, dx
):  # dy, winner as y -> dx [C, D, H, W N]
    parallel_for(dx.shape[0], unpool_channels, (dy, winner, kernel_size, stride, dilation, padding, N, dx))


@helper
def unpool_channels(start, stop, dy, winner, kernel_size, stride, dilation, padding, N, dx):
    _, Do, Ho, _ = dy.shape
    for c in range(start, stop):
        clear(dx[c])
        for p in range(Do):
            for q in range(Ho):
                unpool_row(dy[c, p, q], winner[c, p, q], p, q, kernel_size, stride, dilation, padding, N, dx[c])
