"""The gradient of batch norm, through the max pool and the ReLU that may follow. Channels are rows of L values."""

import triton
import triton.language as tl

from cnn.ops.cuda.kernels.arithmetic import index, is_inside, place
from cnn.ops.cuda.kernels.pool import read_by, routed


@triton.jit(do_not_specialize=["splits", "chunk"])
def sums(dy, y, x, statistics, partial, C, L, splits, chunk, RECTIFY: tl.constexpr, ACC: tl.constexpr, B: tl.constexpr):
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
        pd, ph, pw = place(j // N, Y)
        d, h, v = read_by(pd, ph, pw, tap, STRIDE, DILATION, BEFORE, KERNEL)
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
    block, c = tl.program_id(0), tl.program_id(1)
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
