"""Sums of what many programs have computed, in a fixed order."""

import triton
import triton.language as tl


@triton.jit
def sum_of_splits(partial, i, splits, count, S: tl.constexpr, B: tl.constexpr):
    """The sum over s of partial[s, i], [B]; partial [splits, count]."""
    s = tl.arange(0, S)
    total = tl.zeros((S, B), partial.dtype.element_ty)
    for first in range(0, splits, S):
        at = first + s
        live = (at < splits)[:, None] & (i < count)[None, :]
        total += tl.load(partial + at[:, None] * count + i[None, :], mask=live, other=0.0)
    return tl.sum(total, 0)


@triton.jit(do_not_specialize=["splits", "weights", "biases"])
def add_partial_gradients(partial, dweight, dbias, splits, weights, biases, S: tl.constexpr, B: tl.constexpr):
    """dweight [weights] and dbias [biases] += their partial sums, [splits, weights] and then [splits, biases]."""
    blocks = tl.cdiv(weights, B)
    block = tl.program_id(0)
    if block < blocks:
        i = block * B + tl.arange(0, B)
        total = tl.load(dweight + i, mask=i < weights, other=0.0)
        total += sum_of_splits(partial, i, splits, weights, S, B)
        tl.store(dweight + i, total, mask=i < weights)
    else:
        i = (block - blocks) * B + tl.arange(0, B)
        total = tl.load(dbias + i, mask=i < biases, other=0.0)
        total += sum_of_splits(partial + splits * weights, i, splits, biases, S, B)
        tl.store(dbias + i, total, mask=i < biases)


@triton.jit(do_not_specialize=["splits", "O"])
def add_partial_products(partial, bias, y, splits, O, N, HAS_BIAS: tl.constexpr, S: tl.constexpr, B: tl.constexpr):
    """y [O, N] = the sum of partial [splits, O, N], and of bias [O] in each column."""
    i = tl.program_id(0) * B + tl.arange(0, B)
    total = sum_of_splits(partial, i, splits, O * N, S, B)
    if HAS_BIAS:
        total += tl.load(bias + i // N, mask=i < O * N, other=0.0)
    tl.store(y + i, total, mask=i < O * N)
