"""Triton kernels for batch-last activations [C, D, H, W, N]; prototypes. Every reduction has a fixed order."""

import triton
import triton.language as tl


# ---------------------------------------------------------------- convolution: forward and input gradient
# y[o, out(q), n] = bias[o] + sum over c, t of w[o, c, k0 + t * ks] * x[c, q * sq + base + t * st, n],  out(q) = a + q * so
# Forward: one phase (a = 0, so = 1, sq = stride, base = -before, st = dilation, ks = 1).
# Input gradient: a phase for each remainder of the place by the stride; only taps that meet it are visited.
@triton.jit
def gather_products(
    x, w, bias, y, phases, N, O, C, w_o, w_c, w_g,
    XD, XH, XW, YD, YH, YW,
    SQD: tl.constexpr, SQH: tl.constexpr, SQW: tl.constexpr, STD: tl.constexpr, STH: tl.constexpr, STW: tl.constexpr,
    SOD: tl.constexpr, SOH: tl.constexpr, SOW: tl.constexpr, KSD: tl.constexpr, KSH: tl.constexpr, KSW: tl.constexpr,
    KH: tl.constexpr, KW: tl.constexpr, GROUPS: tl.constexpr, HAS_BIAS: tl.constexpr, MERGED: tl.constexpr,
    TAPS: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
    BO: tl.constexpr, BC: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    phase, group = tl.program_id(2) // GROUPS, tl.program_id(2) % GROUPS
    table = phases + phase * 15  # for each axis: positions, taps, first tap, base, first place
    qd, td, k0d, bd, ad = (
        tl.load(table), tl.load(table + 1), tl.load(table + 2), tl.load(table + 3), tl.load(table + 4))
    qh, th, k0h, bh, ah = (
        tl.load(table + 5), tl.load(table + 6), tl.load(table + 7), tl.load(table + 8), tl.load(table + 9))
    qw, tw, k0w, bw, aw = (
        tl.load(table + 10), tl.load(table + 11), tl.load(table + 12), tl.load(table + 13), tl.load(table + 14))
    n_tiles, h_tiles, w_tiles = tl.cdiv(N, BN), tl.cdiv(qh, PH), tl.cdiv(qw, PW)
    j = tl.arange(0, PH * PW * BN)  # a patch of positions for some examples: its taps overlap, and find x in the first cache
    n = tl.program_id(0) % n_tiles * BN + j % BN
    tile = tl.program_id(0) // n_tiles
    pw = tile % w_tiles * PW + j // BN % PW
    ph = tile // w_tiles % h_tiles * PH + j // (BN * PW)
    pd = tile // (w_tiles * h_tiles) + j // (PH * PW * BN)  # the last is 0
    live = (pd < qd) & (ph < qh) & (pw < qw) & (n < N)
    o = tl.program_id(1) * BO + tl.arange(0, BO)
    plane = XD * XH * XW * N
    x += group * C * plane.to(tl.int64)
    w += group * w_g
    acc = tl.zeros((BO, PH * PW * BN), ACC)
    if MERGED:  # few channels: channels and taps are one axis, one phase
        for start in tl.static_range(0, TAPS, BC):
            k = start + tl.arange(0, BC)
            c, t = k // (TAPS // C), k % (TAPS // C)
            d = (pd * SQD + bd)[None, :] + (t // (KH * KW) * STD)[:, None]
            h = (ph * SQH + bh)[None, :] + (t // KW % KH * STH)[:, None]
            v = (pw * SQW + bw)[None, :] + (t % KW * STW)[:, None]
            inside = (d >= 0) & (d < XD) & (h >= 0) & (h < XH) & (v >= 0) & (v < XW) & live[None, :]
            place = ((d * XH + h) * XW + v) * N + n[None, :]
            columns = tl.load(x + c.to(tl.int64)[:, None] * plane + place, mask=inside & (k < TAPS)[:, None], other=0.0)
            weights = tl.load(w + o[:, None] * w_o + k[None, :], mask=(o < O)[:, None] & (k < TAPS)[None, :], other=0.0)
            acc += tl.dot(weights.to(columns.dtype), columns, input_precision=PRECISION, out_dtype=ACC)
    else:
        channel = tl.arange(0, BC)
        for tap in range(td * th * tw):
            kd, kh, kw = tap // (th * tw), tap // tw % th, tap % tw
            d, h, v = pd * SQD + bd + kd * STD, ph * SQH + bh + kh * STH, pw * SQW + bw + kw * STW
            inside = (d >= 0) & (d < XD) & (h >= 0) & (h < XH) & (v >= 0) & (v < XW) & live
            place = ((d * XH + h) * XW + v) * N + n
            number = ((k0d + kd * KSD) * KH + k0h + kh * KSH) * KW + k0w + kw * KSW
            for first in range(0, C, BC):
                c = first + channel
                columns = tl.load(x + (c.to(tl.int64) * plane)[:, None] + place[None, :], mask=(c < C)[:, None] & inside[None, :], other=0.0)
                weights = tl.load(w + (o * w_o)[:, None] + (c * w_c)[None, :] + number,
                                  mask=(o < O)[:, None] & (c < C)[None, :], other=0.0)  # fmt: skip
                acc += tl.dot(weights.to(columns.dtype), columns, input_precision=PRECISION, out_dtype=ACC)
    if HAS_BIAS:
        acc += tl.load(bias + group * O + o, mask=o < O, other=0.0)[:, None]
    out = (((ad + pd * SOD) * YH + ah + ph * SOH) * YW + aw + pw * SOW) * N + n
    rows = (group * O + o).to(tl.int64) * (YD * YH * YW) * N
    tl.store(y + rows[:, None] + out[None, :], acc, mask=(o < O)[:, None] & live[None, :])


# ---------------------------------------------------------------- convolution: weight gradient
# partial[s, g O + o, k] = sum over the positions of split s and all n of dy[o, p, n] * x[c(k), p * stride + tap(k) * dilation - before, n]
@triton.jit
def weight_products(
    x, dy, partial, partial_bias, N, O, C, XD, XH, XW, YD, YH, YW, positions_a_split,
    SD: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, DD: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr,
    BD: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr, KD: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    GROUPS: tl.constexpr, HAS_BIAS: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
    BO: tl.constexpr, BK: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    TAPS: tl.constexpr = KD * KH * KW
    split, group = tl.program_id(2) // GROUPS, tl.program_id(2) % GROUPS
    o = tl.program_id(0) * BO + tl.arange(0, BO)
    k = tl.program_id(1) * BK + tl.arange(0, BK)
    c, t = k // TAPS, k % TAPS
    kd, kh, kw = t // (KH * KW) * DD - BD, t // KW % KH * DH - BH, t % KW * DW - BW
    places, positions = XD * XH * XW * N, YD * YH * YW
    x += (group * C + c)[:, None].to(tl.int64) * places
    dy += (group * O + o)[:, None].to(tl.int64) * positions * N
    acc = tl.zeros((BO, BK), ACC)
    sums = tl.zeros((BO,), ACC)
    lane = tl.arange(0, BN)
    n_tiles = tl.cdiv(N, BN)
    first = split * positions_a_split
    count = tl.maximum(tl.minimum(positions_a_split, positions - first), 0)
    for step in range(count * n_tiles):
        p, n = first + step // n_tiles, step % n_tiles * BN + lane
        d, h, v = p // (YH * YW) * SD + kd, p // YW % YH * SH + kh, p % YW * SW + kw
        inside = (k < C * TAPS) & (d >= 0) & (d < XD) & (h >= 0) & (h < XH) & (v >= 0) & (v < XW)
        columns = tl.load(x + (((d * XH + h) * XW + v) * N)[:, None] + n[None, :],
                          mask=inside[:, None] & (n < N)[None, :], other=0.0)  # fmt: skip
        gradient = tl.load(dy + p * N + n[None, :], mask=(o < O)[:, None] & (n < N)[None, :], other=0.0)
        acc += tl.dot(gradient, tl.trans(columns), input_precision=PRECISION, out_dtype=ACC)
        if HAS_BIAS:
            sums += tl.sum(gradient.to(ACC), 1)
    rows = (split * GROUPS + group) * O + o
    tl.store(partial + rows[:, None] * (C * TAPS) + k[None, :], acc, mask=(o < O)[:, None] & (k < C * TAPS)[None, :])
    if HAS_BIAS:
        tl.store(partial_bias + rows, sums, mask=(o < O) & (tl.program_id(1) == 0))


@triton.jit
def add_partials(partial, out, count, splits, S: tl.constexpr, B: tl.constexpr):
    """out[i] += sum over s of partial[s, i], in the order of s."""
    i = tl.program_id(0) * B + tl.arange(0, B)
    total = tl.load(out + i, mask=i < count, other=0.0)
    s = tl.arange(0, S)
    acc = tl.zeros((B,), total.dtype)
    for first in range(0, splits, S):
        at = first + s
        block = tl.load(partial + at[:, None] * count + i[None, :], mask=(at < splits)[:, None] & (i < count)[None, :], other=0.0)
        acc += tl.sum(block, 0)
    tl.store(out + i, total + acc, mask=i < count)


# ---------------------------------------------------------------- batch norm, with ReLU and max pool
@triton.jit
def moments(x, partial, L, splits, chunk, B: tl.constexpr, ACC: tl.constexpr):
    """partial[c, s] = count, mean, sum of squared distances of a chunk of channel c (Chan's update, block after block)."""
    c, s = tl.program_id(0), tl.program_id(1)
    row = x + c.to(tl.int64) * L
    count, mean, square = tl.zeros((), ACC), tl.zeros((), ACC), tl.zeros((), ACC)
    end = tl.minimum((s + 1) * chunk, L)
    for first in range(s * chunk, end, B):
        i = first + tl.arange(0, B)
        v = tl.load(row + i, mask=i < end, other=0.0).to(ACC)
        here = tl.minimum(end - first, B).to(ACC)
        m = tl.sum(v, 0) / here
        e = tl.where(i < end, v - m, 0.0)
        both = count + here
        delta = m - mean
        square += tl.sum(e * e, 0) + delta * delta * (count * here / both)
        mean += delta * (here / both)
        count = both
    at = partial + (c * splits + s) * 3
    tl.store(at, count)
    tl.store(at + 1, mean)
    tl.store(at + 2, square)


@triton.jit
def _statistics(partial, c, splits, L, eps, S: tl.constexpr):
    """Mean, biased variance and 1 / sqrt(var + eps) of channel c, from what `moments` left."""
    s = tl.arange(0, S)
    at = partial + (c * splits + s) * 3
    count = tl.load(at, mask=s < splits, other=0.0)
    mean = tl.load(at + 1, mask=s < splits, other=0.0)
    square = tl.load(at + 2, mask=s < splits, other=0.0)
    centre = tl.sum(count * mean, 0) / L
    var = (tl.sum(square, 0) + tl.sum(count * (mean - centre) * (mean - centre), 0)) / L
    return centre, var, 1.0 / tl.sqrt(var + eps)


@triton.jit
def _moved(partial, weight, bias, running_mean, running_var, statistics, c, C, L, splits, momentum, eps, first,
           TRAINING: tl.constexpr, S: tl.constexpr):  # fmt: skip
    """Scale and shift of channel c; the first program of a channel moves the running ones and keeps mean and rstd."""
    if TRAINING:
        mean, var, rstd = _statistics(partial, c, splits, L, eps, S)
        if first:
            old_mean, old_var = tl.load(running_mean + c), tl.load(running_var + c)
            tl.store(running_mean + c, old_mean + momentum * (mean - old_mean))
            tl.store(running_var + c, old_var + momentum * (var * (L / (L - 1.0)) - old_var))
    else:
        mean = tl.load(running_mean + c)
        rstd = 1.0 / tl.sqrt(tl.load(running_var + c) + eps)
    if first:
        tl.store(statistics + c, mean)
        tl.store(statistics + C + c, rstd)
    scale = tl.load(weight + c) * rstd
    return scale, tl.load(bias + c) - mean * scale


@triton.jit
def normalise(x, partial, weight, bias, running_mean, running_var, statistics, y, C, L, splits, momentum, eps,
              TRAINING: tl.constexpr, RECTIFY: tl.constexpr, S: tl.constexpr, B: tl.constexpr):  # fmt: skip
    c = tl.program_id(0)
    scale, shift = _moved(partial, weight, bias, running_mean, running_var, statistics, c, C, L, splits, momentum, eps,
                          tl.program_id(1) == 0, TRAINING, S)  # fmt: skip
    i = tl.program_id(1) * B + tl.arange(0, B)
    row = c.to(tl.int64) * L
    v = tl.load(x + row + i, mask=i < L, other=0.0) * scale + shift
    if RECTIFY:
        v = tl.where(v <= 0, 0.0, v)  # NaN stays
    tl.store(y + row + i, v, mask=i < L)


@triton.jit
def normalise_pool(x, partial, weight, bias, running_mean, running_var, statistics, y, winner, C, L, splits, momentum,
                   eps, XD, XH, XW, YD, YH, YW, N,
                   SD: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, DD: tl.constexpr, DH: tl.constexpr,
                   DW: tl.constexpr, BD: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr, KD: tl.constexpr,
                   KH: tl.constexpr, KW: tl.constexpr, NORM: tl.constexpr, TRAINING: tl.constexpr,
                   RECTIFY: tl.constexpr, S: tl.constexpr, B: tl.constexpr):  # fmt: skip
    """y = the largest normalised value of each window, winner = the number of its tap (KD KH KW: the ReLU cut it off)."""
    c = tl.program_id(0)
    if NORM:
        scale, shift = _moved(partial, weight, bias, running_mean, running_var, statistics, c, C, L, splits, momentum,
                              eps, tl.program_id(1) == 0, TRAINING, S)  # fmt: skip
    j = tl.program_id(1) * B + tl.arange(0, B)
    n, p = j % N, j // N
    pd, ph, pw = p // (YH * YW) * SD - BD, p // YW % YH * SH - BH, p % YW * SW - BW
    live = p < YD * YH * YW
    x += c.to(tl.int64) * L
    best = tl.full((B,), float("-inf"), x.dtype.element_ty)
    won = tl.full((B,), 0, tl.int32)
    untouched = live
    for tap in tl.static_range(KD * KH * KW):
        d, h, v = pd + tap // (KH * KW) * DD, ph + tap // KW % KH * DH, pw + tap % KW * DW
        inside = live & (d >= 0) & (d < XD) & (h >= 0) & (h < XH) & (v >= 0) & (v < XW)
        value = tl.load(x + ((d * XH + h) * XW + v) * N + n, mask=inside, other=float("-inf"))
        if NORM:
            value = value * scale + shift
        better = inside & ((value > best) | (value != value) | untouched)
        best = tl.where(better, value, best)
        won = tl.where(better, tap, won)
        untouched = untouched & ~inside
    if RECTIFY:
        won = tl.where(best <= 0, KD * KH * KW, won)
        best = tl.where(best <= 0, 0.0, best)
    out = c.to(tl.int64) * (YD * YH * YW * N) + j
    tl.store(y + out, best, mask=live)
    tl.store(winner + out, won, mask=live)


@triton.jit
def norm_sums(dy, route, x, statistics, partial, C, L, splits, chunk, RECTIFY: tl.constexpr, B: tl.constexpr, ACC: tl.constexpr):
    """partial[c, s] = sum g, sum g * xhat over a chunk, g being dy where the ReLU let it through."""
    c, s = tl.program_id(0), tl.program_id(1)
    mean, rstd = tl.load(statistics + c), tl.load(statistics + C + c)
    row = c.to(tl.int64) * L
    total, product = tl.zeros((B,), ACC), tl.zeros((B,), ACC)
    end = tl.minimum((s + 1) * chunk, L)
    for first in range(s * chunk, end, B):
        i = first + tl.arange(0, B)
        g = tl.load(dy + row + i, mask=i < end, other=0.0).to(ACC)
        if RECTIFY:
            g = tl.where(tl.load(route + row + i, mask=i < end, other=0.0) <= 0, 0.0, g)
        total += g
        product += g * ((tl.load(x + row + i, mask=i < end, other=0.0).to(ACC) - mean) * rstd)
    at = partial + (c * splits + s) * 2
    tl.store(at, tl.sum(total, 0))
    tl.store(at + 1, tl.sum(product, 0))


@triton.jit
def pool_norm_sums(dy, winner, x, statistics, partial, C, L, splits, chunk, XD, XH, XW, YD, YH, YW, N,
                   SD: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, DD: tl.constexpr, DH: tl.constexpr,
                   DW: tl.constexpr, BD: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr, KD: tl.constexpr,
                   KH: tl.constexpr, KW: tl.constexpr, B: tl.constexpr, ACC: tl.constexpr):  # fmt: skip
    """As norm_sums, over the windows: each dy meets the value that won."""
    c, s = tl.program_id(0), tl.program_id(1)
    mean, rstd = tl.load(statistics + c), tl.load(statistics + C + c)
    M = YD * YH * YW * N
    row, x_row = c.to(tl.int64) * M, x + c.to(tl.int64) * L
    total, product = tl.zeros((B,), ACC), tl.zeros((B,), ACC)
    end = tl.minimum((s + 1) * chunk, M)
    for first in range(s * chunk, end, B):
        j = first + tl.arange(0, B)
        tap = tl.load(winner + row + j, mask=j < end, other=KD * KH * KW).to(tl.int32)
        hit = tap < KD * KH * KW
        g = tl.load(dy + row + j, mask=hit, other=0.0).to(ACC)
        p = j // N
        d, h, v = (p // (YH * YW) * SD - BD + tap // (KH * KW) * DD, p // YW % YH * SH - BH + tap // KW % KH * DH,
                   p % YW * SW - BW + tap % KW * DW)  # fmt: skip
        value = tl.load(x_row + ((d * XH + h) * XW + v) * N + j % N, mask=hit, other=0.0).to(ACC)
        total += g
        product += tl.where(hit, g * ((value - mean) * rstd), 0.0)
    at = partial + (c * splits + s) * 2
    tl.store(at, tl.sum(total, 0))
    tl.store(at + 1, tl.sum(product, 0))


@triton.jit
def norm_gradient(dy, route, x, statistics, weight, dweight, dbias, partial, dx, C, L, splits, XD, XH, XW, YD, YH, YW, N,
                  SD: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, DD: tl.constexpr, DH: tl.constexpr,
                  DW: tl.constexpr, BD: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr, KD: tl.constexpr,
                  KH: tl.constexpr, KW: tl.constexpr, POOL: tl.constexpr, RECTIFY: tl.constexpr, NORM: tl.constexpr,
                  WANTED: tl.constexpr, S: tl.constexpr, B: tl.constexpr):  # fmt: skip
    """dx = weight * rstd * (g - sum g / L - xhat * sum (g * xhat) / L); without NORM dx = g, the pool's gradient."""
    c = tl.program_id(0)
    i = tl.program_id(1) * B + tl.arange(0, B)
    row = c.to(tl.int64) * L
    live = i < L
    if POOL:
        M = YD * YH * YW * N
        n, place = i % N, i // N
        d, h, v = place // (XH * XW), place // XW % XH, place % XW
        g = tl.zeros((B,), dy.dtype.element_ty)
        for tap in tl.static_range(KD * KH * KW):
            rd, rh, rw = d + BD - tap // (KH * KW) * DD, h + BH - tap // KW % KH * DH, v + BW - tap % KW * DW
            pd, ph, pw = rd // SD, rh // SH, rw // SW
            meets = live & (rd >= 0) & (rh >= 0) & (rw >= 0) & (rd % SD == 0) & (rh % SH == 0) & (rw % SW == 0)
            meets = meets & (pd < YD) & (ph < YH) & (pw < YW)
            j = c.to(tl.int64) * M + ((pd * YH + ph) * YW + pw) * N + n
            won = tl.load(route + j, mask=meets, other=KD * KH * KW).to(tl.int32) == tap
            g += tl.load(dy + j, mask=meets & won, other=0.0)
    else:
        g = tl.load(dy + row + i, mask=live, other=0.0)
        if RECTIFY:
            g = tl.where(tl.load(route + row + i, mask=live, other=0.0) <= 0, 0.0, g)
    if NORM:
        s = tl.arange(0, S)
        at = partial + (c * splits + s) * 2
        total = tl.sum(tl.load(at, mask=s < splits, other=0.0), 0)
        product = tl.sum(tl.load(at + 1, mask=s < splits, other=0.0), 0)
        if WANTED:
            if tl.program_id(1) == 0:
                tl.store(dweight + c, tl.load(dweight + c) + product)
                tl.store(dbias + c, tl.load(dbias + c) + total)
        mean, rstd = tl.load(statistics + c), tl.load(statistics + C + c)
        xhat = (tl.load(x + row + i, mask=live, other=0.0) - mean) * rstd
        g = tl.load(weight + c) * rstd * (g - total / L - xhat * (product / L))
    tl.store(dx + row + i, g, mask=live)


# ---------------------------------------------------------------- loss and optimizer
@triton.jit
def softmax_loss(logits, target, weight, smoothing, gradient, partial, K, L,
                 WEIGHTED: tl.constexpr, BK: tl.constexpr, BL: tl.constexpr, ALL: tl.constexpr):  # fmt: skip
    """dlogits, and of each block of targets the loss and the hits, [blocks, 2]. K classes at once."""
    k = tl.arange(0, BK)
    n = tl.program_id(0) * BL + tl.arange(0, BL)
    live = (k < K)[:, None] & (n < L)[None, :]
    z = tl.load(logits + k[:, None] * L + n[None, :], mask=live, other=0.0)
    z = tl.where((k < K)[:, None], z, float("-inf"))
    t = tl.load(target + n, mask=n < L, other=0).to(tl.int32)
    top = tl.max(z, 0)
    shifted = tl.where((k < K)[:, None], z - top[None, :], 0.0)
    e = tl.where((k < K)[:, None], tl.exp(shifted), 0.0)
    total = tl.sum(e, 0)
    log_total = tl.log(total)
    is_target = k[:, None] == t[None, :]
    if WEIGHTED:
        w = tl.load(weight + k, mask=k < K, other=0.0)
        wanted = tl.sum(tl.where(is_target, w[:, None], 0.0), 0)
        norm = tl.zeros((), z.dtype)
        for first in range(0, L, ALL):  # every program sums all weights: a few kilobytes, and no further launch
            m = first + tl.arange(0, ALL)
            norm += tl.sum(tl.load(weight + tl.load(target + m, mask=m < L, other=0), mask=m < L, other=0.0), 0)
        norm = tl.where(norm == 0, 1.0, norm)
    else:
        w = tl.where(k < K, 1.0, 0.0).to(z.dtype)
        wanted = tl.where(n < L, 1.0, 0.0).to(z.dtype)
        norm = L.to(z.dtype)
    wanted = tl.where(n < L, wanted, 0.0)
    spread = smoothing / K * w
    q = tl.where(is_target, ((1 - smoothing) * wanted)[None, :], 0.0) + tl.where((n < L)[None, :], spread[:, None], 0.0)
    tl.store(gradient + k[:, None] * L + n[None, :], (tl.sum(q, 0) / total * e - q) / norm, mask=live)
    loss = tl.sum(tl.sum(q * (log_total[None, :] - shifted), 0), 0) / norm
    first_top = tl.min(tl.where((z == top[None, :]) & live, k[:, None], BK), 0)
    tl.store(partial + tl.program_id(0) * 2, loss)
    tl.store(partial + tl.program_id(0) * 2 + 1, tl.sum(((first_top == t) & (n < L)).to(z.dtype), 0))


@triton.jit
def adam(data, gradient, mean, square, scalars, fault, P, B: tl.constexpr):
    """scalars (on the device, so that a captured graph sees new ones): b1, b2, 1 - b1, 1 - b2, eps, step, 1 / correction.

    Where `fault` is set nothing changes: the host may look at it later.
    """
    b1, b2, a1, a2 = tl.load(scalars), tl.load(scalars + 1), tl.load(scalars + 2), tl.load(scalars + 3)
    eps, step, scale = tl.load(scalars + 4), tl.load(scalars + 5), tl.load(scalars + 6)
    i = tl.program_id(0) * B + tl.arange(0, B)
    live = (i < P) & (tl.load(fault) == 0)
    g = tl.load(gradient + i, mask=live, other=0.0)
    m = tl.load(mean + i, mask=live, other=0.0) * b1 + g * a1
    s = tl.load(square + i, mask=live, other=0.0) * b2 + g * g * a2
    tl.store(mean + i, m, mask=live)
    tl.store(square + i, s, mask=live)
    tl.store(data + i, tl.load(data + i, mask=live, other=0.0) - step * m / (tl.sqrt(s) * scale + eps), mask=live)


@triton.jit
def take_examples(rows, chosen, x, N, P, scale, shift, BP: tl.constexpr, BN: tl.constexpr):
    """x[p, n] = rows[chosen[n], p] * scale + shift: pixels of a batch, turned batch-last through a tile."""
    p = tl.program_id(0) * BP + tl.arange(0, BP)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    row = tl.load(chosen + n, mask=n < N, other=0)
    live = (p < P)[None, :] & (n < N)[:, None]
    tile = tl.load(rows + row[:, None] * P + p[None, :], mask=live, other=0).to(tl.float32) * scale + shift
    tl.store(x + p[:, None] * N + n[None, :], tl.trans(tile), mask=(p < P)[:, None] & (n < N)[None, :])
