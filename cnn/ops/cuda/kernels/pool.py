"""Pools: the largest value under a window, and the sum. A channel's values are numbered (place, example)."""

import triton
import triton.language as tl

from cnn.ops.cuda.kernels.arithmetic import index, is_inside, place, rectify


@triton.jit
def read_by(pd, ph, pw, tap, STRIDE: tl.constexpr, DILATION: tl.constexpr, BEFORE: tl.constexpr, KERNEL: tl.constexpr):
    """The place that a window at a position reads by a tap; it may be outside of the image."""
    kd, kh, kw = place(tap, KERNEL)
    d = pd * STRIDE[0] - BEFORE[0] + kd * DILATION[0]
    h = ph * STRIDE[1] - BEFORE[1] + kh * DILATION[1]
    return d, h, pw * STRIDE[2] - BEFORE[2] + kw * DILATION[2]


@triton.jit
def largest(
    x,
    j,
    N,
    scale,
    mean,
    shift,
    X: tl.constexpr,
    Y: tl.constexpr,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    BEFORE: tl.constexpr,
    KERNEL: tl.constexpr,
    NORM: tl.constexpr,
    RECTIFY: tl.constexpr,
):
    """The largest value of the windows j, the number of its tap, and which of them there are.

    Values are normalised first if NORM. The first tap wins ties, NaN always wins, padding never does. RECTIFY applies
    a ReLU; a window that it sets to 0 is won by no tap, whose number is that of all taps.
    """
    TAPS: tl.constexpr = KERNEL[0] * KERNEL[1] * KERNEL[2]
    n, p = j % N, j // N
    pd, ph, pw = place(p, Y)
    live = p < Y[0] * Y[1] * Y[2]
    best = tl.full(j.shape, float("-inf"), x.dtype.element_ty)
    won = tl.full(j.shape, 0, tl.int32)
    untouched = live
    for tap in tl.static_range(TAPS):
        d, h, v = read_by(pd, ph, pw, tap, STRIDE, DILATION, BEFORE, KERNEL)
        inside = live & is_inside(d, h, v, X)
        value = tl.load(x + index(d, h, v, X) * N + n, mask=inside, other=float("-inf"))
        if NORM:
            value = (value - mean) * scale + shift
        better = inside & ((value > best) | (value != value) | untouched)
        best = tl.where(better, value, best)
        won = tl.where(better, tap, won)
        untouched = untouched & ~inside
    if RECTIFY:
        won = tl.where(best <= 0, TAPS, won)
        best = rectify(best)
    return best, won, live


@triton.jit
def routed(
    dy,
    winner,
    i,
    live,
    N,
    X: tl.constexpr,
    Y: tl.constexpr,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    BEFORE: tl.constexpr,
    KERNEL: tl.constexpr,
):
    """The sum of dy over the windows that the inputs i have won."""
    TAPS: tl.constexpr = KERNEL[0] * KERNEL[1] * KERNEL[2]
    total = tl.zeros(i.shape, dy.dtype.element_ty)
    for tap in tl.static_range(TAPS):
        j, meets = window_of(i, tap, N, X, Y, STRIDE, DILATION, BEFORE, KERNEL)
        meets = meets & live
        won = tl.load(winner + j, mask=meets, other=TAPS).to(tl.int32) == tap
        total += tl.load(dy + j, mask=meets & won, other=0.0)
    return total


@triton.jit
def window_of(
    i,
    tap,
    N,
    X: tl.constexpr,
    Y: tl.constexpr,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    BEFORE: tl.constexpr,
    KERNEL: tl.constexpr,
):
    """The window that reads input i by this tap, and whether there is one."""
    n = i % N
    xd, xh, xw = place(i // N, X)
    kd, kh, kw = place(tap, KERNEL)
    d = xd + BEFORE[0] - kd * DILATION[0]
    h = xh + BEFORE[1] - kh * DILATION[1]
    v = xw + BEFORE[2] - kw * DILATION[2]
    meets = (d >= 0) & (h >= 0) & (v >= 0) & (d % STRIDE[0] == 0) & (h % STRIDE[1] == 0) & (v % STRIDE[2] == 0)
    pd, ph, pw = d // STRIDE[0], h // STRIDE[1], v // STRIDE[2]
    return index(pd, ph, pw, Y) * N + n, meets & (pd < Y[0]) & (ph < Y[1]) & (pw < Y[2])


@triton.jit
def max_pool(
    x,
    y,
    winner,
    L,
    N,
    X: tl.constexpr,
    Y: tl.constexpr,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    BEFORE: tl.constexpr,
    KERNEL: tl.constexpr,
    B: tl.constexpr,
):
    """y and winner of channel program_id(1); see `largest`."""
    c = tl.program_id(1).to(tl.int64)
    j = tl.program_id(0) * B + tl.arange(0, B)
    best, won, live = largest(x + c * L, j, N, 1.0, 0.0, 0.0, X, Y, STRIDE, DILATION, BEFORE, KERNEL, False, False)
    out = c * (Y[0] * Y[1] * Y[2]) * N + j
    tl.store(y + out, best, mask=live)
    tl.store(winner + out, won, mask=live)


@triton.jit
def max_pool_backward(
    dy,
    winner,
    dx,
    L,
    N,
    X: tl.constexpr,
    Y: tl.constexpr,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    BEFORE: tl.constexpr,
    KERNEL: tl.constexpr,
    B: tl.constexpr,
):
    """dx = dy at the places that won."""
    c = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * B + tl.arange(0, B)
    M = c * (Y[0] * Y[1] * Y[2]) * N
    tl.store(
        dx + c * L + i, routed(dy + M, winner + M, i, i < L, N, X, Y, STRIDE, DILATION, BEFORE, KERNEL), mask=i < L
    )


@triton.jit
def window_sum(
    x,
    y,
    L,
    N,
    X: tl.constexpr,
    Y: tl.constexpr,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    BEFORE: tl.constexpr,
    KERNEL: tl.constexpr,
    B: tl.constexpr,
):
    """y = the sum of x under each window, tap after tap."""
    c = tl.program_id(1).to(tl.int64)
    j = tl.program_id(0) * B + tl.arange(0, B)
    n, p = j % N, j // N
    live = p < Y[0] * Y[1] * Y[2]
    pd, ph, pw = place(p, Y)
    total = tl.zeros(j.shape, x.dtype.element_ty)
    for tap in tl.static_range(KERNEL[0] * KERNEL[1] * KERNEL[2]):
        d, h, v = read_by(pd, ph, pw, tap, STRIDE, DILATION, BEFORE, KERNEL)
        total += tl.load(x + c * L + index(d, h, v, X) * N + n, mask=live & is_inside(d, h, v, X), other=0.0)
    tl.store(y + c * (Y[0] * Y[1] * Y[2]) * N + j, total, mask=live)


@triton.jit
def window_sum_backward(
    dy,
    dx,
    L,
    N,
    X: tl.constexpr,
    Y: tl.constexpr,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    BEFORE: tl.constexpr,
    KERNEL: tl.constexpr,
    B: tl.constexpr,
):
    """dx = the sum of dy over the windows that read each input."""
    c = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * B + tl.arange(0, B)
    total = tl.zeros(i.shape, dy.dtype.element_ty)
    for tap in tl.static_range(KERNEL[0] * KERNEL[1] * KERNEL[2]):
        j, meets = window_of(i, tap, N, X, Y, STRIDE, DILATION, BEFORE, KERNEL)
        total += tl.load(dy + c * (Y[0] * Y[1] * Y[2]) * N + j, mask=meets & (i < L), other=0.0)
    tl.store(dx + c * L + i, total, mask=i < L)
