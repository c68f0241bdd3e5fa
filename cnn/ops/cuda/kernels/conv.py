"""Convolution: the output and the input's gradient as one gather, the weight's gradient as a sum over all places.

`gather` computes, for the places q of a phase,

    y[o, out(q), n] = bias[o] + sum over c, t of w[o, c, first + t * STEP] * x[c, q * PLACE + base + t * TAP, n]
    out(q) = start + q * OUT

A forward pass is a single phase: PLACE is the stride, TAP the dilation, base the negative padding. The gradient of the
input has a phase for each remainder of a place by the stride, and visits only the taps that meet it.
"""

import triton
import triton.language as tl

from cnn.ops.cuda.kernels.arithmetic import index, is_inside, multiply_add, place


@triton.jit
def phase_numbers(phases, phase, axis: tl.constexpr):
    """Five numbers of a phase along an axis: places, taps, first tap, base, start; `geometry.Phases` has the table."""
    at = phases + phase * 15 + axis * 5
    return tl.load(at), tl.load(at + 1), tl.load(at + 2), tl.load(at + 3), tl.load(at + 4)


@triton.jit
def gather(
    x,
    w,
    bias,
    y,
    phases,
    N,
    w_o,
    w_c,
    w_g,
    w_t,
    O: tl.constexpr,
    C: tl.constexpr,
    X: tl.constexpr,
    Y: tl.constexpr,
    PLACE: tl.constexpr,
    TAP: tl.constexpr,
    OUT: tl.constexpr,
    STEP: tl.constexpr,
    KERNEL: tl.constexpr,
    BASE: tl.constexpr,
    GROUPS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    MODE: tl.constexpr,
    PRECISION: tl.constexpr,
    ACC: tl.constexpr,
    BO: tl.constexpr,
    BC: tl.constexpr,
    PH: tl.constexpr,
    PW: tl.constexpr,
    BN: tl.constexpr,
):
    """BO outputs of a patch of PH x PW places for BN examples. The weights' strides are w_o, w_c, w_g and w_t.

    MODE: `dot` multiplies matrices, tap by tap; `merged` does so with channels and taps as one axis, for few channels;
    `outer` adds outer products in ordinary arithmetic. BASE: the base if there is a single phase that starts at 0 and
    has all taps, which makes loops constant; None reads `phases`.
    """
    TAPS: tl.constexpr = KERNEL[0] * KERNEL[1] * KERNEL[2]
    phase, group = tl.program_id(2) // GROUPS, tl.program_id(2) % GROUPS
    if BASE is not None:
        qd, qh, qw = Y[0], Y[1], Y[2]
        td, th, tw = KERNEL[0], KERNEL[1], KERNEL[2]
        first_d, first_h, first_w = 0, 0, 0
        base_d, base_h, base_w = BASE[0], BASE[1], BASE[2]
        start_d, start_h, start_w = 0, 0, 0
    else:
        qd, td, first_d, base_d, start_d = phase_numbers(phases, phase, 0)
        qh, th, first_h, base_h, start_h = phase_numbers(phases, phase, 1)
        qw, tw, first_w, base_w, start_w = phase_numbers(phases, phase, 2)
    n_tiles, h_tiles, w_tiles = tl.cdiv(N, BN), tl.cdiv(qh, PH), tl.cdiv(qw, PW)
    j = tl.arange(0, PH * PW * BN)
    n = tl.program_id(0) % n_tiles * BN + j % BN
    tile = tl.program_id(0) // n_tiles
    pw = tile % w_tiles * PW + j // BN % PW
    ph = tile // w_tiles % h_tiles * PH + j // (BN * PW)
    pd = tile // (w_tiles * h_tiles) + tl.zeros_like(j)
    live = (pd < qd) & (ph < qh) & (pw < qw) & (n < N)
    o = tl.program_id(1) * BO + tl.arange(0, BO)
    channel_size = tl.zeros((), tl.int64) + X[0] * X[1] * X[2] * N
    x += group * C * channel_size
    w += group * w_g
    total = tl.zeros((BO, PH * PW * BN), ACC)
    d0, h0, w0 = pd * PLACE[0] + base_d, ph * PLACE[1] + base_h, pw * PLACE[2] + base_w
    if MODE == "merged":
        for start in tl.static_range(0, C * TAPS, BC):
            k = start + tl.arange(0, BC)
            c, t = k // TAPS, k % TAPS
            kd, kh, kw = place(t, KERNEL)
            d = d0[None, :] + (kd * TAP[0])[:, None]
            h = h0[None, :] + (kh * TAP[1])[:, None]
            v = w0[None, :] + (kw * TAP[2])[:, None]
            wanted = is_inside(d, h, v, X) & live[None, :] & (k < C * TAPS)[:, None]
            at = c[:, None] * channel_size + index(d, h, v, X) * N + n[None, :]
            columns = tl.load(x + at, mask=wanted, other=0.0)
            at = o[:, None] * w_o + k[None, :]
            weights = tl.load(w + at, mask=(o < O)[:, None] & (k < C * TAPS)[None, :], other=0.0)
            total = multiply_add(weights, columns, total, PRECISION)
    elif MODE == "outer":
        for c in range(0, C):
            for tap in tl.static_range(TAPS):
                kd, kh, kw = place(tap, KERNEL)
                d, h, v = d0 + kd * TAP[0], h0 + kh * TAP[1], w0 + kw * TAP[2]
                wanted = is_inside(d, h, v, X) & live
                value = tl.load(x + c * channel_size + index(d, h, v, X) * N + n, mask=wanted, other=0.0).to(ACC)
                weight = tl.load(w + o * w_o + c * w_c + tap * w_t, mask=o < O, other=0.0).to(ACC)
                total += weight[:, None] * value[None, :]
    else:
        channel = tl.arange(0, BC)
        blocks: tl.constexpr = (C + BC - 1) // BC
        for step in range(td * th * tw * blocks):
            tap, c = step // blocks, step % blocks * BC + channel
            kd, kh, kw = tap // (th * tw), tap // tw % th, tap % tw
            d, h, v = d0 + kd * TAP[0], h0 + kh * TAP[1], w0 + kw * TAP[2]
            wanted = (c < C)[:, None] & (is_inside(d, h, v, X) & live)[None, :]
            at = (c * channel_size)[:, None] + (index(d, h, v, X) * N + n)[None, :]
            columns = tl.load(x + at, mask=wanted, other=0.0)
            number = index(first_d + kd * STEP[0], first_h + kh * STEP[1], first_w + kw * STEP[2], KERNEL)
            at = (o * w_o)[:, None] + (c * w_c)[None, :] + number * w_t
            weights = tl.load(w + at, mask=(o < O)[:, None] & (c < C)[None, :], other=0.0)
            total = multiply_add(weights, columns, total, PRECISION)
    if HAS_BIAS:
        total += tl.load(bias + group * O + o, mask=o < O, other=0.0).to(ACC)[:, None]
    out = index(start_d + pd * OUT[0], start_h + ph * OUT[1], start_w + pw * OUT[2], Y) * N + n
    rows = (group * O + o).to(tl.int64) * (Y[0] * Y[1] * Y[2]) * N
    tl.store(y + rows[:, None] + out[None, :], total, mask=(o < O)[:, None] & live[None, :])


@triton.jit
def turn_weights(w, turned, w_o, w_c, O, C, BO: tl.constexpr, BC: tl.constexpr):
    """turned[t, o, c] = w[o * w_o + c * w_c + t]: a tap's weights together, which `gather` loads at once."""
    t = tl.program_id(0)
    o = tl.program_id(1) * BO + tl.arange(0, BO)
    c = tl.program_id(2) * BC + tl.arange(0, BC)
    live = (o < O)[:, None] & (c < C)[None, :]
    weights = tl.load(w + o[:, None] * w_o + c[None, :] * w_c + t, mask=live, other=0.0)
    tl.store(turned + (t * O + o[:, None]) * C + c[None, :], weights, mask=live)


@triton.jit(do_not_specialize=["splits", "split_steps"])
def weight_products(
    x,
    dy,
    partial,
    N,
    split_steps,
    splits,
    O: tl.constexpr,
    C: tl.constexpr,
    X: tl.constexpr,
    Y: tl.constexpr,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    BEFORE: tl.constexpr,
    KERNEL: tl.constexpr,
    GROUPS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    PRECISION: tl.constexpr,
    ACC: tl.constexpr,
    BO: tl.constexpr,
    BK: tl.constexpr,
    BN: tl.constexpr,
):
    """Products of dy and x, summed over a split of all pairs of a position and BN examples.

    partial [splits * G O C K] for the weight's gradient, followed by [splits * G O] for the bias's.
    """
    TAPS: tl.constexpr = KERNEL[0] * KERNEL[1] * KERNEL[2]
    split, group = tl.program_id(2) // GROUPS, tl.program_id(2) % GROUPS
    o = tl.program_id(0) * BO + tl.arange(0, BO)
    k = tl.program_id(1) * BK + tl.arange(0, BK)
    c, t = k // TAPS, k % TAPS
    kd, kh, kw = place(t, KERNEL)
    d0, h0, w0 = kd * DILATION[0] - BEFORE[0], kh * DILATION[1] - BEFORE[1], kw * DILATION[2] - BEFORE[2]
    n_tiles = tl.cdiv(N, BN)
    x += (group * C + c)[:, None].to(tl.int64) * (X[0] * X[1] * X[2]) * N
    dy += (group * O + o)[:, None].to(tl.int64) * (Y[0] * Y[1] * Y[2]) * N
    total = tl.zeros((BO, BK), ACC)
    sums = tl.zeros((BO, BN), ACC)
    lane = tl.arange(0, BN)
    first = split * split_steps
    last = tl.minimum(first + split_steps, Y[0] * Y[1] * Y[2] * n_tiles)
    for step in range(first, last):
        p, n = step // n_tiles, step % n_tiles * BN + lane
        pd, ph, pw = place(p, Y)
        d, h, v = pd * STRIDE[0] + d0, ph * STRIDE[1] + h0, pw * STRIDE[2] + w0
        wanted = ((k < C * TAPS) & is_inside(d, h, v, X))[:, None] & (n < N)[None, :]
        columns = tl.load(x + (index(d, h, v, X) * N)[:, None] + n[None, :], mask=wanted, other=0.0)
        gradient = tl.load(dy + p * N + n[None, :], mask=(o < O)[:, None] & (n < N)[None, :], other=0.0)
        total = multiply_add(gradient, tl.trans(columns), total, PRECISION)
        if HAS_BIAS:
            sums += gradient.to(ACC)
    rows = (split * GROUPS + group) * O + o
    at = rows[:, None] * (C * TAPS) + k[None, :]
    tl.store(partial + at, total, mask=(o < O)[:, None] & (k < C * TAPS)[None, :])
    if HAS_BIAS:
        at = splits * (GROUPS * O * C * TAPS) + rows
        tl.store(partial + at, tl.sum(sums, 1), mask=(o < O) & (tl.program_id(1) == 0))
