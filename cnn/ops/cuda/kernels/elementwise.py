"""ReLU, leaky ReLU and sums of two tensors, value by value."""

import triton
import triton.language as tl

from cnn.ops.cuda.kernels.arithmetic import rectify


@triton.jit
def values(B: tl.constexpr):
    """The numbers of this program's values."""
    return tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)


@triton.jit
def relu(x, y, L, B: tl.constexpr):
    i = values(B)
    tl.store(y + i, rectify(tl.load(x + i, mask=i < L, other=0.0)), mask=i < L)


@triton.jit
def relu_backward(dy, y, dx, L, B: tl.constexpr):
    i = values(B)
    stopped = tl.load(y + i, mask=i < L, other=0.0) <= 0
    tl.store(dx + i, tl.where(stopped, 0.0, tl.load(dy + i, mask=i < L, other=0.0)), mask=i < L)


@triton.jit
def scale_where_not_positive(a, x, y, L, SLOPE: tl.constexpr, B: tl.constexpr):
    """y = a where x > 0, else SLOPE * a."""
    i = values(B)
    value = tl.load(a + i, mask=i < L, other=0.0)
    positive = tl.load(x + i, mask=i < L, other=0.0) > 0
    tl.store(y + i, tl.where(positive, value, value * SLOPE), mask=i < L)


@triton.jit
def add(a, b, y, L, RECTIFY: tl.constexpr, B: tl.constexpr):
    """y = a + b, then ReLU if RECTIFY."""
    i = values(B)
    total = tl.load(a + i, mask=i < L, other=0.0) + tl.load(b + i, mask=i < L, other=0.0)
    if RECTIFY:
        total = rectify(total)
    tl.store(y + i, total, mask=i < L)
