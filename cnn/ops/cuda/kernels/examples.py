"""Batches from a table of examples."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["examples"])
def take_examples(rows, chosen, x, examples, N, P, BP: tl.constexpr, BN: tl.constexpr):
    """x[p, n] = rows[chosen[n], p]: a tile is read along rows and written along examples. Unknown examples give NaN."""
    p = tl.program_id(0) * BP + tl.arange(0, BP)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    row = tl.load(chosen + n, mask=n < N, other=0)
    known = (row >= 0) & (row < examples)
    live = (n < N)[:, None] & (p < P)[None, :]
    tile = tl.load(rows + row[:, None] * P + p[None, :], mask=live & known[:, None], other=0).to(x.dtype.element_ty)
    tile = tl.where(known[:, None], tile, float("nan"))
    tl.store(x + p.to(tl.int64)[:, None] * N + n[None, :], tl.trans(tile), mask=(p < P)[:, None] & (n < N)[None, :])
