"""Products of a matrix of weights with the features of each example."""

import triton
import triton.language as tl

from cnn.ops.cuda.kernels.arithmetic import multiply_add


@triton.jit(do_not_specialize=["split_steps"])
def product(
    w,
    x,
    bias,
    y,
    N,
    w_o,
    w_i,
    split_steps,
    O: tl.constexpr,
    I: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    PRECISION: tl.constexpr,
    ACC: tl.constexpr,
    BO: tl.constexpr,
    BI: tl.constexpr,
    BN: tl.constexpr,
):
    """y[s, o, n] = bias[o] + the sum over a split's inputs i of w[o * w_o + i * w_i] * x[i, n]; split s is program 2.

    A split has `split_steps` blocks of BI inputs.
    """
    split = tl.program_id(2)
    o = tl.program_id(0) * BO + tl.arange(0, BO)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    total = tl.zeros((BO, BN), ACC)
    blocks: tl.constexpr = (I + BI - 1) // BI
    for block in range(split * split_steps, tl.minimum((split + 1) * split_steps, blocks)):
        i = block * BI + tl.arange(0, BI)
        weights = tl.load(w + o[:, None] * w_o + i[None, :] * w_i, mask=(o < O)[:, None] & (i < I)[None, :], other=0.0)
        at = i.to(tl.int64)[:, None] * N + n[None, :]
        features = tl.load(x + at, mask=(i < I)[:, None] & (n < N)[None, :], other=0.0)
        total = multiply_add(weights, features, total, PRECISION)
    if HAS_BIAS:
        total += tl.load(bias + o, mask=o < O, other=0.0).to(ACC)[:, None]
    at = (split * O + o).to(tl.int64)[:, None] * N + n[None, :]
    tl.store(y + at, total, mask=(o < O)[:, None] & (n < N)[None, :])
