"""The loops of ReLU, leaky ReLU and sums."""

from __future__ import annotations

from cnn.ops.cpu.codegen.compiler import helper, kernel
from cnn.ops.cpu.codegen.parallel import parallel_for


@kernel
def relu(x, y):  # x, y [L]
    parallel_for(x.size, relu_part, (x, y))


@helper
def relu_part(start, stop, x, y):
    x, y, zero = x[start:stop], y[start:stop], x.dtype.type(0)
    for i in range(x.size):
        y[i] = zero if x[i] < zero else x[i]


@kernel
def relu_backward(dy, y, dx):  # dy, y, dx [L]
    parallel_for(dy.size, relu_backward_part, (dy, y, dx))


@helper
def relu_backward_part(start, stop, dy, y, dx):
    dy, y, dx, zero = dy[start:stop], y[start:stop], dx[start:stop], dy.dtype.type(0)
    for i in range(dy.size):
        dx[i] = zero if y[i] <= zero else dy[i]


@kernel
def scale_where_not_positive(values, x, slope, scaled):  # values, x, scaled [L]
    parallel_for(x.size, scale_part, (values, x, x.dtype.type(slope), scaled))


@helper
def scale_part(start, stop, values, x, slope, scaled):
    values, x, scaled, zero = values[start:stop], x[start:stop], scaled[start:stop], x.dtype.type(0)
    for i in range(x.size):
        scaled[i] = values[i] if x[i] > zero else values[i] * slope


@kernel
def add(a, b, y):  # a, b, y [L]
    parallel_for(y.size, add_part, (a, b, y))


@helper
def add_part(start, stop, a, b, y):
    a, b, y = a[start:stop], b[start:stop], y[start:stop]
    for i in range(y.size):
        y[i] = a[i] + b[i]


@kernel
def add_relu(a, b, y):  # a, b, y [L]
    parallel_for(y.size, add_relu_part, (a, b, y))


@helper
def add_relu_part(start, stop, a, b, y):
    a, b, y, zero = a[start:stop], b[start:stop], y[start:stop], a.dtype.type(0)
    for i in range(y.size):
        value = a[i] + b[i]
        y[i] = zero if value < zero else value
