"""The loops of ReLU and leaky ReLU."""

from __future__ import annotations

from numba import prange

from cnn.ops.cpu.codegen.compiler import kernel


@kernel
def relu(x, y):  # x, y [L]
    zero = x.dtype.type(0)
    for i in prange(x.size):
        y[i] = zero if x[i] < zero else x[i]


@kernel
def relu_backward(dy, y, dx):  # dy, y, dx [L]
    zero = dy.dtype.type(0)
    for i in prange(dy.size):
        dx[i] = zero if y[i] <= zero else dy[i]


@kernel
def scale_where_not_positive(values, x, slope, scaled):  # values, x, scaled [L]
    zero, factor = x.dtype.type(0), x.dtype.type(slope)
    for i in prange(x.size):
        scaled[i] = values[i] if x[i] > zero else values[i] * factor
