"""The loops of ReLU."""

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
