"""Batch norm, with the max pool and the ReLU that may follow. Channels are rows of L values."""

import triton
import triton.language as tl

from cnn.ops.cuda.kernels.arithmetic import divide, index, is_inside, rectify, root
from cnn.ops.cuda.kernels.pool import largest, routed


@triton.jit(do_not_specialize=["splits", "chunk"])
def moments(x, partial, L, splits, chunk, ACC: tl.constexpr, B: tl.constexpr):
    """partial[c, s] = count, mean and sum of squared distances from it of a chunk of channel c.

    The sums are of distances from the chunk's first value: those of values far from 0 would cancel.
    """
    c, s = tl.program_id(0), tl.program_id(1)
    row = x + c.to(tl.int64) * L
    origin = tl.load(row + s * chunk).to(ACC)
    end = tl.minimum((s + 1) * chunk, L)
    total, square = tl.zeros((B,), ACC), tl.zeros((B,), ACC)
    for first in range(s * chunk, end, B):
        i = first + tl.arange(0, B)
        away = tl.where(i < end, tl.load(row + i, mask=i < end, other=0.0).to(ACC) - origin, 0.0)
        total += away
        square += away * away
    count = (end - s * chunk).to(ACC)
    shift = tl.sum(total, 0) / count
    squares = tl.sum(square, 0) - count * shift * shift
    at = partial + (c * splits + s) * 3
    tl.store(at, count)
    tl.store(at + 1, origin + shift)
    tl.store(at + 2, tl.maximum(squares, 0.0, propagate_nan=tl.PropagateNan.ALL))


@triton.jit
def mean_and_var(partial, c, splits, L, S: tl.constexpr):
    """Mean and biased variance of channel c, from the moments of its chunks."""
    s = tl.arange(0, S)
    at = partial + (c * splits + s) * 3
    count = tl.load(at, mask=s < splits, other=0.0)
    mean = tl.load(at + 1, mask=s < splits, other=0.0)
    square = tl.load(at + 2, mask=s < splits, other=0.0)
    origin = tl.load(partial + c * splits * 3 + 1)
    centre = origin + tl.sum(count * tl.where(s < splits, mean - origin, 0.0), 0) / L
    away = tl.where(s < splits, mean - centre, 0.0)
    return centre, (tl.sum(square, 0) + tl.sum(count * away * away, 0)) / L


@triton.jit
def scale_and_shift(
    partial,
    weight,
    bias,
    running_mean,
    running_var,
    statistics,
    c,
    C,
    L,
    splits,
    is_first,
    MOMENTUM: tl.constexpr,
    EPS: tl.constexpr,
    TRAINING: tl.constexpr,
    S: tl.constexpr,
):
    """scale, mean and shift of y = (x - mean) * scale + shift.

    The first program of a channel moves the running moments, and writes mean and rstd.
    """
    if TRAINING:
        mean, var = mean_and_var(partial, c, splits, L, S)
        if is_first:
            old_mean, old_var = tl.load(running_mean + c), tl.load(running_var + c)
            count = L.to(var.dtype)
            unbiased = var * (count / (count - 1.0))
            tl.store(running_mean + c, old_mean + MOMENTUM * (mean - old_mean))
            tl.store(running_var + c, old_var + MOMENTUM * (unbiased - old_var))
    else:
        mean, var = tl.load(running_mean + c), tl.load(running_var + c)
    rstd = divide(1.0, root(var + EPS))
    if is_first:
        tl.store(statistics + c, mean)
        tl.store(statistics + C + c, rstd)
    scale = tl.load(weight + c) * rstd
    return scale, mean, tl.load(bias + c)


@triton.jit(do_not_specialize=["splits"])
def normalise(
    x,
    partial,
    weight,
    bias,
    running_mean,
    running_var,
    statistics,
    y,
    C,
    L,
    splits,
    MOMENTUM: tl.constexpr,
    EPS: tl.constexpr,
    TRAINING: tl.constexpr,
    RECTIFY: tl.constexpr,
    S: tl.constexpr,
    B: tl.constexpr,
):
    """y = norm(x), then ReLU if RECTIFY."""
    c, block = tl.program_id(0), tl.program_id(1)
    scale, mean, shift = scale_and_shift(
        partial, weight, bias, running_mean, running_var, statistics, c, C, L, splits, block == 0, MOMENTUM, EPS, TRAINING, S
    )  # fmt: skip
    i = block * B + tl.arange(0, B)
    row = c.to(tl.int64) * L
    value = (tl.load(x + row + i, mask=i < L, other=0.0) - mean) * scale + shift
    if RECTIFY:
        value = rectify(value)
    tl.store(y + row + i, value, mask=i < L)


@triton.jit(do_not_specialize=["splits"])
def normalise_and_pool(
    x,
    partial,
    weight,
    bias,
    running_mean,
    running_var,
    statistics,
    y,
    winner,
    C,
    L,
    splits,
    N,
    X: tl.constexpr,
    Y: tl.constexpr,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    BEFORE: tl.constexpr,
    KERNEL: tl.constexpr,
    MOMENTUM: tl.constexpr,
    EPS: tl.constexpr,
    TRAINING: tl.constexpr,
    RECTIFY: tl.constexpr,
    S: tl.constexpr,
    B: tl.constexpr,
):
    """y = the largest normalised value of each window, winner = the number of its tap; see `largest`."""
    c, block = tl.program_id(0), tl.program_id(1)
    scale, mean, shift = scale_and_shift(
        partial, weight, bias, running_mean, running_var, statistics, c, C, L, splits, block == 0, MOMENTUM, EPS, TRAINING, S
    )  # fmt: skip
    j = block * B + tl.arange(0, B)
    best, won, live = largest(
        x + c.to(tl.int64) * L, j, N, scale, mean, shift, X, Y, STRIDE, DILATION, BEFORE, KERNEL, True, RECTIFY
    )
    out = c.to(tl.int64) * (Y[0] * Y[1] * Y[2] * N) + j
    tl.store(y + out, best, mask=live)
    tl.store(winner + out, won, mask=live)


@triton.jit(do_not_specialize=["splits", "chunk"])
def sums(
    dy, y, x, statistics, partial, C, L, splits, chunk, RECTIFY: tl.constexpr, ACC: tl.constexpr, B: tl.constexpr
):
    """partial[c, s] = sum of g and of g * xhat over a chunk; g is dy where the ReLU's output y is above 0."""
    c, s = tl.program_id(0), tl.program_id(1)
    mean, rstd = tl.load(statistics + c), tl.load(statistics + C + c)
    row = c.to(tl.int64) * L
    total, product = tl.zeros((B,), ACC), tl.zeros((B,), ACC)
    end = tl.minimum((s + 1) * chunk, L)
    for first in range(s * chunk, end, B):
        i = first + tl.arange(0, B)
        g = tl.load(dy + row + i, mask=i < end, other=0.0).to(ACC)
        if RECTIFY:
            g = tl.where(tl.load(y + row + i, mask=i < end, other=0.0) <= 0, 0.0, g)
        xhat = (tl.load(x + row + i, mask=i < end, other=0.0).to(ACC) - mean) * rstd
        total += g
        product += tl.where(i < end, g * xhat, 0.0)
    at = partial + (c * splits + s) * 2
    tl.store(at, tl.sum(total, 0))
    tl.store(at + 1, tl.sum(product, 0))


@triton.jit(do_not_specialize=["splits", "chunk"])
def pooled_sums(
    dy,
    winner,
    x,
    statistics,
    partial,
    C,
    L,
    splits,
    chunk,
    N,
    X: tl.constexpr,
    Y: tl.constexpr,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    BEFORE: tl.constexpr,
    KERNEL: tl.constexpr,
    ACC: tl.constexpr,
    B: tl.constexpr,
):
    """As `sums`, over the windows of a pool: each dy meets the value that won its window."""
    TAPS: tl.constexpr = KERNEL[0] * KERNEL[1] * KERNEL[2]
    c, s = tl.program_id(0), tl.program_id(1)
    mean, rstd = tl.load(statistics + c), tl.load(statistics + C + c)
    M = Y[0] * Y[1] * Y[2] * N
    row, x_row = c.to(tl.int64) * M, x + c.to(tl.int64) * L
    total, product = tl.zeros((B,), ACC), tl.zeros((B,), ACC)
    end = tl.minimum((s + 1) * chunk, M)
    for first in range(s * chunk, end, B):
        j = first + tl.arange(0, B)
        tap = tl.load(winner + row + j, mask=j < end, other=TAPS).to(tl.int32)
        hit = tap < TAPS
        g = tl.load(dy + row + j, mask=hit, other=0.0).to(ACC)
        p = j // N
        d = p // (Y[1] * Y[2]) * STRIDE[0] - BEFORE[0] + tap // (KERNEL[1] * KERNEL[2]) * DILATION[0]
        h = p // Y[2] % Y[1] * STRIDE[1] - BEFORE[1] + tap // KERNEL[2] % KERNEL[1] * DILATION[1]
        v = p % Y[2] * STRIDE[2] - BEFORE[2] + tap % KERNEL[2] * DILATION[2]
        hit = hit & is_inside(d, h, v, X)
        value = tl.load(x_row + index(d, h, v, X) * N + j % N, mask=hit, other=0.0).to(ACC)
        total += g
        product += tl.where(hit, g * ((value - mean) * rstd), 0.0)
    at = partial + (c * splits + s) * 2
    tl.store(at, tl.sum(total, 0))
    tl.store(at + 1, tl.sum(product, 0))


@triton.jit(do_not_specialize=["splits"])
def gradient(
    dy,
    route,
    x,
    statistics,
    weight,
    dweight,
    dbias,
    partial,
    dx,
    C,
    L,
    splits,
    N,
    X: tl.constexpr,
    Y: tl.constexpr,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    BEFORE: tl.constexpr,
    KERNEL: tl.constexpr,
    ROUTE: tl.constexpr,
    NEED_DPARAMS: tl.constexpr,
    S: tl.constexpr,
    B: tl.constexpr,
):
    """dx = weight * rstd * (g - sum g / L - xhat * sum (g * xhat) / L); the first program of a channel adds to dweight.

    ROUTE: how g comes from dy: `none` g = dy, `relu` through a ReLU with output `route`, `pool` to the winners `route`.
    """
    c, block = tl.program_id(0), tl.program_id(1)
    i = block * B + tl.arange(0, B)
    row = c.to(tl.int64) * L
    live = i < L
    if ROUTE == "pool":
        M = (tl.zeros((), tl.int64) + c) * (Y[0] * Y[1] * Y[2]) * N
        g = routed(dy + M, route + M, i, live, N, X, Y, STRIDE, DILATION, BEFORE, KERNEL)
    else:
        g = tl.load(dy + row + i, mask=live, other=0.0)
        if ROUTE == "relu":
            g = tl.where(tl.load(route + row + i, mask=live, other=0.0) <= 0, 0.0, g)
    s = tl.arange(0, S)
    at = partial + (c * splits + s) * 2
    total = tl.sum(tl.load(at, mask=s < splits, other=0.0), 0)
    product = tl.sum(tl.load(at + 1, mask=s < splits, other=0.0), 0)
    if NEED_DPARAMS:
        if block == 0:
            tl.store(dweight + c, tl.load(dweight + c) + product)
            tl.store(dbias + c, tl.load(dbias + c) + total)
    mean, rstd = tl.load(statistics + c), tl.load(statistics + C + c)
    xhat = (tl.load(x + row + i, mask=live, other=0.0) - mean) * rstd
    tl.store(dx + row + i, tl.load(weight + c) * rstd * (g - total / L - xhat * (product / L)), mask=live)
