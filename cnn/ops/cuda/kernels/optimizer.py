"""Adam's step in one pass over its vectors."""

import triton
import triton.language as tl

from cnn.ops.cuda.kernels.arithmetic import divide, root


@triton.jit
def adam(
    data,
    gradient,
    mean,
    square,
    step,
    correction,
    P,
    B1: tl.constexpr,
    B2: tl.constexpr,
    A1: tl.constexpr,
    A2: tl.constexpr,
    EPS: tl.constexpr,
    B: tl.constexpr,
):
    """A1 = 1 - B1 and A2 = 1 - B2, which the host computes in double precision."""
    i = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    live = i < P
    g = tl.load(gradient + i, mask=live, other=0.0)
    m = tl.load(mean + i, mask=live, other=0.0) * B1 + g * A1
    s = tl.load(square + i, mask=live, other=0.0) * B2 + g * g * A2
    tl.store(mean + i, m, mask=live)
    tl.store(square + i, s, mask=live)
    move = divide(tl.load(step) * m, root(s) * tl.load(correction) + EPS)
    tl.store(data + i, tl.load(data + i, mask=live, other=0.0) - move, mask=live)
