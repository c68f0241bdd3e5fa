"""Batch norm, with the max pool and the ReLU that may follow. Channels are rows of L values."""

import triton
import triton.language as tl

from cnn.ops.cuda.kernels.arithmetic import divide, rectify, root
from cnn.ops.cuda.kernels.pool import largest


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
            count = tl.full((), L, var.dtype)
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
        block == 0,
        MOMENTUM,
        EPS,
        TRAINING,
        S,
    )
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
        block == 0,
        MOMENTUM,
        EPS,
        TRAINING,
        S,
    )
    j = block * B + tl.arange(0, B)
    best, won, live = largest(
        x + c.to(tl.int64) * L, j, N, scale, mean, shift, X, Y, STRIDE, DILATION, BEFORE, KERNEL, True, RECTIFY
    )
    out = c.to(tl.int64) * (Y[0] * Y[1] * Y[2] * N) + j
    tl.store(y + out, best, mask=live)
    tl.store(winner + out, won, mask=live)
