"""Cross entropy and its gradient in one pass over the logits."""

import triton
import triton.language as tl


@triton.jit
def sum_of_weights(target, weight, K, L, B: tl.constexpr):
    """The weights of all targets; every program adds them up, which is less work than a launch of its own."""
    total = tl.zeros((B,), weight.dtype.element_ty)
    for first in range(0, L, B):
        n = first + tl.arange(0, B)
        t = tl.load(target + n, mask=n < L, other=-1)
        total += tl.load(weight + t, mask=(n < L) & (t >= 0) & (t < K), other=0.0)
    whole = tl.sum(total, 0)
    return tl.where(whole == 0, 1.0, whole)


@triton.jit
def cross_entropy(
    logits,
    target,
    weight,
    gradient,
    partial,
    fault,
    K,
    L,
    SMOOTHING: tl.constexpr,
    WEIGHTED: tl.constexpr,
    CHECKED: tl.constexpr,
    BK: tl.constexpr,
    BL: tl.constexpr,
):
    """The gradient, and each block's part of the value in `partial` [blocks]. All K classes are in one block of BK.

    CHECKED: whether `fault` is set to 1 if a target isn't a class.
    """
    k = tl.arange(0, BK)
    n = tl.program_id(0) * BL + tl.arange(0, BL)
    is_class, is_example = k < K, n < L
    live = is_class[:, None] & is_example[None, :]
    z = tl.load(logits + k[:, None] * L + n[None, :], mask=live, other=0.0)
    label = tl.load(target + n, mask=is_example, other=-1)
    t = label.to(tl.int32)
    if CHECKED:
        strays = tl.max(tl.where(is_example & ((label < 0) | (label >= K)), 1, 0), 0)
        tl.store(fault, 1, mask=strays > 0)
    top = tl.max(tl.where(is_class[:, None], z, float("-inf")), 0, return_indices=False)
    shifted = tl.where(live, z - top[None, :], 0.0)
    e = tl.where(is_class[:, None], tl.exp(shifted), 0.0)
    total = tl.sum(e, 0)
    log_total = tl.log(total)
    is_target = k[:, None] == t[None, :]
    if WEIGHTED:
        w = tl.load(weight + k, mask=is_class, other=0.0)
        wanted = tl.sum(tl.where(is_target, w[:, None], 0.0), 0)
        whole = sum_of_weights(target, weight, K, L, 1024)
    else:
        w = tl.where(is_class, 1.0, 0.0).to(z.dtype)
        wanted = tl.where(is_example, 1.0, 0.0).to(z.dtype)
        whole = tl.full((), L, z.dtype)  # the compiler may know L: of a single target it is a constant
    share = tl.where(is_target, ((1.0 - SMOOTHING) * wanted)[None, :], 0.0)
    share += tl.where(is_example[None, :], (w * SMOOTHING / K)[:, None], 0.0)
    dz = (e / total[None, :]) * tl.sum(share, 0)[None, :] - share
    tl.store(gradient + k[:, None] * L + n[None, :], dz / whole, mask=live)
    losses = tl.where(live & (share != 0), share * (log_total[None, :] - shifted), 0.0)  # 0, not 0 * infinity
    tl.store(partial + tl.program_id(0), tl.sum(tl.sum(losses, 0), 0) / whole)


@triton.jit
def count_hits(scores, target, hits, K, N, B: tl.constexpr):
    """hits [] = how many targets are the first index of the largest score; NaN counts as larger. One program."""
    total = tl.zeros((B,), tl.int64)
    for first in range(0, N, B):
        n = first + tl.arange(0, B)
        best = tl.load(scores + n, mask=n < N, other=0.0)
        found = tl.zeros((B,), tl.int32)
        for k in range(1, K):
            score = tl.load(scores + k * N + n, mask=n < N, other=0.0)
            better = (best == best) & ((score > best) | (score != score))
            best = tl.where(better, score, best)
            found = tl.where(better, k, found)
        total += tl.where((n < N) & (tl.load(target + n, mask=n < N, other=-1) == found), 1, 0)
    tl.store(hits, tl.sum(total, 0))
