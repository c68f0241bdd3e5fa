"""Arithmetic that several kernels share."""

import triton
import triton.language as tl


@triton.jit
def multiply_add(a, b, total, PRECISION: tl.constexpr):
    """total + a @ b. PRECISION: how exact factors are, `ieee`, `tf32x3`, `tf32` or `bf16`; sums are never rounded."""
    if PRECISION == "bf16":
        return tl.dot(a.to(tl.bfloat16), b.to(tl.bfloat16), total)
    else:
        return tl.dot(a, b, total, input_precision=PRECISION, out_dtype=total.dtype)


@triton.jit
def divide(a, b):
    """a / b, rounded as IEEE 754 wants it."""
    if b.dtype == tl.float64:
        return a / b
    else:
        return tl.math.div_rn(a, b)


@triton.jit
def root(x):
    """sqrt(x), rounded as IEEE 754 wants it."""
    if x.dtype == tl.float64:
        return tl.sqrt(x)
    else:
        return tl.math.sqrt_rn(x)


@triton.jit
def is_inside(d, h, w, SIZE: tl.constexpr):
    """Whether a place is on an image of this size."""
    return (d >= 0) & (d < SIZE[0]) & (h >= 0) & (h < SIZE[1]) & (w >= 0) & (w < SIZE[2])


@triton.jit
def index(d, h, w, SIZE: tl.constexpr):
    """The number of a place of an image in row-major order."""
    return (d * SIZE[1] + h) * SIZE[2] + w


@triton.jit
def place(number, SIZE: tl.constexpr):
    """The place with a number in row-major order, the inverse of `index`; of a kernel's size it is a tap."""
    return number // (SIZE[1] * SIZE[2]), number // SIZE[2] % SIZE[1], number % SIZE[2]


@triton.jit
def rectify(x):
    """max(x, 0); NaN stays NaN."""
    return tl.where(x <= 0, 0.0, x)
