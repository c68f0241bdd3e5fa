"""Second version of the prototype's kernels: one flat loop with pipelined loads, sizes known to the compiler, splits over
positions and examples, sums kept in lanes, a finite check, and Adam with everything on the device."""

import triton
import triton.language as tl

from kernels import _moved

FREE = ["splits", "steps_a_split", "chunk", "nblocks", "count", "biases"]  # no variants of a kernel for these


@triton.jit
def gather(
    x, w, bias, y, phases, N, w_o, w_c, w_g, w_t,
    O: tl.constexpr, C: tl.constexpr,
    XD: tl.constexpr, XH: tl.constexpr, XW: tl.constexpr, YD: tl.constexpr, YH: tl.constexpr, YW: tl.constexpr,
    SQD: tl.constexpr, SQH: tl.constexpr, SQW: tl.constexpr, STD: tl.constexpr, STH: tl.constexpr, STW: tl.constexpr,
    SOD: tl.constexpr, SOH: tl.constexpr, SOW: tl.constexpr, KSD: tl.constexpr, KSH: tl.constexpr, KSW: tl.constexpr,
    KD: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, AD: tl.constexpr, AH: tl.constexpr, AW: tl.constexpr,
    GROUPS: tl.constexpr, HAS_BIAS: tl.constexpr, MODE: tl.constexpr, ONE: tl.constexpr,
    PRECISION: tl.constexpr, ACC: tl.constexpr,
    BO: tl.constexpr, BC: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """As gather_products. MODE: "dot", "merged" (channels and taps are one axis), "fma" (outer products, exact float32).

    With ONE phase its numbers are constants: all taps, base AD, AH, AW, first place 0.
    """
    phase, group = tl.program_id(2) // GROUPS, tl.program_id(2) % GROUPS
    if ONE:
        qd, qh, qw = YD, YH, YW
        td, th, tw = KD, KH, KW
        k0d, k0h, k0w = 0, 0, 0
        bd, bh, bw = AD, AH, AW
        ad, ah, aw = 0, 0, 0
    else:
        table = phases + phase * 15
        qd, td, k0d, bd, ad = (
            tl.load(table), tl.load(table + 1), tl.load(table + 2), tl.load(table + 3), tl.load(table + 4))
        qh, th, k0h, bh, ah = (
            tl.load(table + 5), tl.load(table + 6), tl.load(table + 7), tl.load(table + 8), tl.load(table + 9))
        qw, tw, k0w, bw, aw = (
            tl.load(table + 10), tl.load(table + 11), tl.load(table + 12), tl.load(table + 13), tl.load(table + 14))
    n_tiles, h_tiles, w_tiles = tl.cdiv(N, BN), tl.cdiv(qh, PH), tl.cdiv(qw, PW)
    j = tl.arange(0, PH * PW * BN)
    n = tl.program_id(0) % n_tiles * BN + j % BN
    tile = tl.program_id(0) // n_tiles
    pw = tile % w_tiles * PW + j // BN % PW
    ph = tile // w_tiles % h_tiles * PH + j // (BN * PW)
    pd = tile // (w_tiles * h_tiles) + j // (PH * PW * BN)  # the last is 0
    live = (pd < qd) & (ph < qh) & (pw < qw) & (n < N)
    o = tl.program_id(1) * BO + tl.arange(0, BO)
    plane = XD * XH * XW * N
    wide = tl.zeros((), tl.int64) + plane
    x += group * C * wide
    w += group * w_g
    acc = tl.zeros((BO, PH * PW * BN), ACC)
    ld, lh, lw = pd * SQD + bd, ph * SQH + bh, pw * SQW + bw
    if MODE == "merged":
        for start in tl.static_range(0, C * KD * KH * KW, BC):
            k = start + tl.arange(0, BC)
            c, t = k // (KD * KH * KW), k % (KD * KH * KW)
            d = ld[None, :] + (t // (KH * KW) * STD)[:, None]
            h = lh[None, :] + (t // KW % KH * STH)[:, None]
            v = lw[None, :] + (t % KW * STW)[:, None]
            inside = (d >= 0) & (d < XD) & (h >= 0) & (h < XH) & (v >= 0) & (v < XW) & live[None, :]
            place = ((d * XH + h) * XW + v) * N + n[None, :]
            columns = tl.load(x + c[:, None] * wide + place, mask=inside & (k < C * KD * KH * KW)[:, None], other=0.0)
            weights = tl.load(w + o[:, None] * w_o + k[None, :],
                              mask=(o < O)[:, None] & (k < C * KD * KH * KW)[None, :], other=0.0)  # fmt: skip
            acc += tl.dot(weights.to(columns.dtype), columns, input_precision=PRECISION, out_dtype=ACC)
    elif MODE == "fma":
        for c in range(0, C):
            for tap in tl.static_range(KD * KH * KW):
                kd = tap // (KH * KW)
                kh = tap // KW % KH
                kw = tap % KW
                d, h, v = ld + kd * STD, lh + kh * STH, lw + kw * STW
                inside = (d >= 0) & (d < XD) & (h >= 0) & (h < XH) & (v >= 0) & (v < XW) & live
                value = tl.load(x + c * wide + ((d * XH + h) * XW + v) * N + n, mask=inside, other=0.0).to(ACC)
                weight = tl.load(w + o * w_o + c * w_c + tap * w_t, mask=o < O, other=0.0).to(ACC)
                acc += weight[:, None] * value[None, :]
    else:
        channel = tl.arange(0, BC)
        blocks: tl.constexpr = (C + BC - 1) // BC
        for step in range(td * th * tw * blocks):
            tap, c = step // blocks, step % blocks * BC + channel
            kd, kh, kw = tap // (th * tw), tap // tw % th, tap % tw
            d, h, v = ld + kd * STD, lh + kh * STH, lw + kw * STW
            inside = (d >= 0) & (d < XD) & (h >= 0) & (h < XH) & (v >= 0) & (v < XW) & live
            place = ((d * XH + h) * XW + v) * N + n
            number = ((k0d + kd * KSD) * KH + k0h + kh * KSH) * KW + k0w + kw * KSW
            columns = tl.load(x + (c * wide)[:, None] + place[None, :], mask=(c < C)[:, None] & inside[None, :], other=0.0)
            weights = tl.load(w + (o * w_o)[:, None] + (c * w_c)[None, :] + number * w_t,
                              mask=(o < O)[:, None] & (c < C)[None, :], other=0.0)  # fmt: skip
            acc += tl.dot(weights.to(columns.dtype), columns, input_precision=PRECISION, out_dtype=ACC)
    if HAS_BIAS:
        acc += tl.load(bias + group * O + o, mask=o < O, other=0.0).to(ACC)[:, None]
    out = (((ad + pd * SOD) * YH + ah + ph * SOH) * YW + aw + pw * SOW) * N + n
    rows = (group * O + o).to(tl.int64) * (YD * YH * YW) * N
    tl.store(y + rows[:, None] + out[None, :], acc, mask=(o < O)[:, None] & live[None, :])


@triton.jit(do_not_specialize=FREE)
def weight_products(
    x, dy, partial, N, steps_a_split, splits,
    O: tl.constexpr, C: tl.constexpr,
    XD: tl.constexpr, XH: tl.constexpr, XW: tl.constexpr, YD: tl.constexpr, YH: tl.constexpr, YW: tl.constexpr,
    SD: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, DD: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr,
    BD: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr, KD: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    GROUPS: tl.constexpr, HAS_BIAS: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
    BO: tl.constexpr, BK: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Splits over (position, block of examples). partial [splits, G O C K | splits, G O]: weights, then biases."""
    TAPS: tl.constexpr = KD * KH * KW
    split, group = tl.program_id(2) // GROUPS, tl.program_id(2) % GROUPS
    o = tl.program_id(0) * BO + tl.arange(0, BO)
    k = tl.program_id(1) * BK + tl.arange(0, BK)
    c, t = k // TAPS, k % TAPS
    kd, kh, kw = t // (KH * KW) * DD - BD, t // KW % KH * DH - BH, t % KW * DW - BW
    n_tiles = tl.cdiv(N, BN)
    x += (group * C + c)[:, None].to(tl.int64) * (XD * XH * XW) * N
    dy += (group * O + o)[:, None].to(tl.int64) * (YD * YH * YW) * N
    acc = tl.zeros((BO, BK), ACC)
    sums = tl.zeros((BO, BN), ACC)
    lane = tl.arange(0, BN)
    first = split * steps_a_split
    last = tl.minimum(first + steps_a_split, YD * YH * YW * n_tiles)
    for step in range(first, last):
        p, n = step // n_tiles, step % n_tiles * BN + lane
        d, h, v = p // (YH * YW) * SD + kd, p // YW % YH * SH + kh, p % YW * SW + kw
        inside = (k < C * TAPS) & (d >= 0) & (d < XD) & (h >= 0) & (h < XH) & (v >= 0) & (v < XW)
        columns = tl.load(x + (((d * XH + h) * XW + v) * N)[:, None] + n[None, :],
                          mask=inside[:, None] & (n < N)[None, :], other=0.0)  # fmt: skip
        gradient = tl.load(dy + p * N + n[None, :], mask=(o < O)[:, None] & (n < N)[None, :], other=0.0)
        acc += tl.dot(gradient, tl.trans(columns), input_precision=PRECISION, out_dtype=ACC)
        if HAS_BIAS:
            sums += gradient.to(ACC)
    rows = (split * GROUPS + group) * O + o
    tl.store(partial + rows[:, None] * (C * TAPS) + k[None, :], acc, mask=(o < O)[:, None] & (k < C * TAPS)[None, :])
    if HAS_BIAS:
        at = partial + splits * (GROUPS * O * C * TAPS) + rows
        tl.store(at, tl.sum(sums, 1), mask=(o < O) & (tl.program_id(1) == 0))


@triton.jit(do_not_specialize=FREE)
def add_partials(partial, dweight, dbias, splits, count, biases, S: tl.constexpr, B: tl.constexpr):
    """dweight += the sum of its partials, dbias as well: fixed order, one launch."""
    blocks = tl.cdiv(count, B)
    s = tl.arange(0, S)
    if tl.program_id(0) < blocks:
        i = tl.program_id(0) * B + tl.arange(0, B)
        total = tl.load(dweight + i, mask=i < count, other=0.0)
        acc = tl.zeros((S, B), total.dtype)
        for first in range(0, splits, S):
            at = first + s
            acc += tl.load(partial + at[:, None] * count + i[None, :], mask=(at < splits)[:, None] & (i < count)[None, :], other=0.0)
        tl.store(dweight + i, total + tl.sum(acc, 0), mask=i < count)
    else:
        i = (tl.program_id(0) - blocks) * B + tl.arange(0, B)
        total = tl.load(dbias + i, mask=i < biases, other=0.0)
        acc = tl.zeros((S, B), total.dtype)
        for first in range(0, splits, S):
            at = first + s
            acc += tl.load(partial + splits * count + at[:, None] * biases + i[None, :],
                           mask=(at < splits)[:, None] & (i < biases)[None, :], other=0.0)  # fmt: skip
        tl.store(dbias + i, total + tl.sum(acc, 0), mask=i < biases)


@triton.jit(do_not_specialize=FREE)
def moments(x, partial, L, splits, chunk, B: tl.constexpr, ACC: tl.constexpr):
    """As the first version's, with lanes that sum distances from the row's first value, and one reduction at the end."""
    c, s = tl.program_id(0), tl.program_id(1)
    row = x + c.to(tl.int64) * L
    origin = tl.load(row + s * chunk).to(ACC)
    end = tl.minimum((s + 1) * chunk, L)
    total, square = tl.zeros((B,), ACC), tl.zeros((B,), ACC)
    for first in range(s * chunk, end, B):
        i = first + tl.arange(0, B)
        v = tl.where(i < end, tl.load(row + i, mask=i < end, other=0.0).to(ACC) - origin, 0.0)
        total += v
        square += v * v
    count = (end - s * chunk).to(ACC)
    away = tl.sum(total, 0) / count
    at = partial + (c * splits + s) * 3
    tl.store(at, count)
    tl.store(at + 1, origin + away)
    tl.store(at + 2, tl.maximum(tl.sum(square, 0) - count * away * away, 0.0, propagate_nan=tl.PropagateNan.ALL))


@triton.jit
def relu(x, y, L, B: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    v = tl.load(x + i, mask=i < L, other=0.0)
    tl.store(y + i, tl.where(v <= 0, 0.0, v), mask=i < L)


@triton.jit
def relu_backward(dy, y, dx, L, B: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    v = tl.load(y + i, mask=i < L, other=0.0)
    tl.store(dx + i, tl.where(v <= 0, 0.0, tl.load(dy + i, mask=i < L, other=0.0)), mask=i < L)


@triton.jit
def add_relu(a, b, y, L, B: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    v = tl.load(a + i, mask=i < L, other=0.0) + tl.load(b + i, mask=i < L, other=0.0)
    tl.store(y + i, tl.where(v <= 0, 0.0, v), mask=i < L)


@triton.jit(do_not_specialize=FREE)
def finite(gradient, loss, flags, state, scalars, P, B: tl.constexpr):
    """flags[block] = whether a gradient of the block, or the loss, is not finite; the first program counts the step.

    state float64: steps, lr, b1, b2, eps, log b1, log b2 (float32 arguments would cost 1 - b2 its digits).
    scalars [7] as in `adam`.
    """
    i = tl.program_id(0) * B + tl.arange(0, B)
    g = tl.load(gradient + i, mask=i < P, other=0.0)
    value = tl.load(loss)
    bad = tl.sum(tl.where(g - g == 0, 0, 1), 0) + tl.where(value - value == 0, 0, 1)
    tl.store(flags + tl.program_id(0), (bad > 0).to(tl.int32))
    if tl.program_id(0) == 0:
        t = tl.load(state) + 1.0
        tl.store(state, t)
        b1, b2 = tl.load(state + 2), tl.load(state + 3)
        tl.store(scalars, b1)
        tl.store(scalars + 1, b2)
        tl.store(scalars + 2, 1.0 - b1)
        tl.store(scalars + 3, 1.0 - b2)
        tl.store(scalars + 4, tl.load(state + 4))
        tl.store(scalars + 5, tl.load(state + 1) / (1.0 - tl.exp(t * tl.load(state + 5))))
        tl.store(scalars + 6, 1.0 / tl.sqrt(1.0 - tl.exp(t * tl.load(state + 6))))


@triton.jit(do_not_specialize=FREE)
def adam(data, gradient, mean, square, scalars, flags, nblocks, P, F: tl.constexpr, B: tl.constexpr):
    """Where a flag is set nothing changes: the host may look at it later."""
    f = tl.arange(0, F)
    fault = tl.max(tl.load(flags + f, mask=f < nblocks, other=0), 0)
    b1, b2, a1, a2 = tl.load(scalars), tl.load(scalars + 1), tl.load(scalars + 2), tl.load(scalars + 3)
    eps, step, scale = tl.load(scalars + 4), tl.load(scalars + 5), tl.load(scalars + 6)
    i = tl.program_id(0) * B + tl.arange(0, B)
    live = (i < P) & (fault == 0)
    g = tl.load(gradient + i, mask=live, other=0.0)
    m = tl.load(mean + i, mask=live, other=0.0) * b1 + g * a1
    s = tl.load(square + i, mask=live, other=0.0) * b2 + g * g * a2
    tl.store(mean + i, m, mask=live)
    tl.store(square + i, s, mask=live)
    tl.store(data + i, tl.load(data + i, mask=live, other=0.0) - step * m / (tl.sqrt(s) * scale + eps), mask=live)


@triton.jit
def normalise_add(x, partial, weight, bias, running_mean, running_var, statistics, other, y, C, L, splits, momentum, eps,
                  TRAINING: tl.constexpr, S: tl.constexpr, B: tl.constexpr):  # fmt: skip
    """y = relu(norm(x) + other): the end of a residual block."""
    c = tl.program_id(0)
    scale, shift = _moved(partial, weight, bias, running_mean, running_var, statistics, c, C, L, splits, momentum, eps,
                          tl.program_id(1) == 0, TRAINING, S)  # fmt: skip
    i = tl.program_id(1) * B + tl.arange(0, B)
    row = c.to(tl.int64) * L
    v = tl.load(x + row + i, mask=i < L, other=0.0) * scale + shift + tl.load(other + row + i, mask=i < L, other=0.0)
    tl.store(y + row + i, tl.where(v <= 0, 0.0, v), mask=i < L)


@triton.jit
def add_masked(a, dy, y, dx, L, B: tl.constexpr):
    """dx = a + dy where y > 0."""
    i = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    g = tl.where(tl.load(y + i, mask=i < L, other=0.0) <= 0, 0.0, tl.load(dy + i, mask=i < L, other=0.0))
    tl.store(dx + i, tl.load(a + i, mask=i < L, other=0.0) + g, mask=i < L)


@triton.jit
def transpose_weight(w, out, w_o, w_c, w_t, O, C, T, BO: tl.constexpr, BC: tl.constexpr):
    """out[t, o, c] = w[o * w_o + c * w_c + t * w_t]."""
    t = tl.program_id(0)
    o = tl.program_id(1) * BO + tl.arange(0, BO)
    c = tl.program_id(2) * BC + tl.arange(0, BC)
    live = (o < O)[:, None] & (c < C)[None, :]
    v = tl.load(w + o[:, None] * w_o + c[None, :] * w_c + t * w_t, mask=live, other=0.0)
    tl.store(out + (t * O + o[:, None]) * C + c[None, :], v, mask=live)
