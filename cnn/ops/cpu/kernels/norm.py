"""The loops of batch normalisation, with the max pool and the ReLU that may follow it.

A channel is read twice, for its statistics and to be normalised. With a pool, the normalised values go to a plane of
memory per thread, which stays in cache unless it is large. Rows are [L] = [D H W N], one channel.
"""

from __future__ import annotations

import numba
import numpy as np

from cnn.ops.cpu.codegen.arithmetic import minus, multiply_add, plus, times, where_positive
from cnn.ops.cpu.codegen.compiler import helper, kernel
from cnn.ops.cpu.codegen.parallel import parallel_for
from cnn.ops.cpu.codegen.vectors import load, store, sum_of, width, zeros
from cnn.ops.cpu.kernels.window import clear, pool_row, unpool_row

CHUNK = 16
"""The number of blocks of four vectors that are summed in the dtype of the values; further sums are float64."""


@helper
def moments(x):
    """Mean and (biased) variance of a row, [L], in one pass.

    Sums x - shift and its square, where shift is the mean of the first values: unless these are far from the others, no
    digits of the variance are lost, however large the mean is.
    """
    step = 4 * width(x)
    whole = x.size // step * step
    first = x.dtype.type(0)
    for i in range(min(step, x.size)):
        first += x[i]
    shift = x.dtype.type(first / min(step, x.size))
    total, squares = 0.0, 0.0
    for start in range(0, whole, CHUNK * step):
        sums, products = zeros(x, 1, 4), zeros(x, 1, 4)
        for i in range(start, min(start + CHUNK * step, whole), step):
            centred = minus(load(x, i, 4), shift)
            sums = plus(sums, centred)
            products = multiply_add(centred, centred, products)
        total += sum_of(sums)
        squares += sum_of(products)
    for i in range(whole, x.size):
        centred = x[i] - shift
        total += centred
        squares += centred * centred
    offset = total / x.size
    var = squares / x.size - offset * offset
    return shift + offset, 0.0 if var < 0 else var


@helper
def normalise(x, centre, scale, shift, rectify, y):
    """y = (x - centre) * scale + shift, followed by a ReLU if `rectify`; rows [L]."""
    zero = x.dtype.type(0)
    if rectify:
        for i in range(x.size):
            value = (x[i] - centre) * scale + shift
            y[i] = zero if value < zero else value
    else:
        for i in range(x.size):
            y[i] = (x[i] - centre) * scale + shift


@helper
def rectify_and_mark(y, winner, nobody):
    """y = max(y, 0), and winner = nobody where that is 0; rows of one size."""
    zero = y.dtype.type(0)
    for i in range(y.size):
        cut = y[i] <= zero
        winner[i] = nobody if cut else winner[i]
        y[i] = zero if cut else y[i]


@helper
def measure(x, c, moving, statistics):
    """Write mean and 1 / sqrt(var + eps) of channel c, [L], to `statistics`, [2, C]."""
    running_mean, running_var, training, momentum, eps = moving
    if training:
        mean, var = moments(x)
        running_mean[c] += momentum * (mean - running_mean[c])
        running_var[c] += momentum * (var * x.size / (x.size - 1) - running_var[c])
    else:
        mean, var = running_mean[c], running_var[c]
    statistics[0, c] = mean
    statistics[1, c] = 1 / np.sqrt(var + eps)


@kernel
def batch_norm(
    x, weight, bias, running_mean, running_var, training, momentum, eps, rectify, y, statistics
):  # x, y [C, L]; statistics [2, C]; vectors [C]
    moving = running_mean, running_var, training, momentum, eps
    parallel_for(x.shape[0], normalise_channels, (x, weight, bias, moving, rectify, y, statistics))


@helper
def normalise_channels(start, stop, x, weight, bias, moving, rectify, y, statistics):
    for c in range(start, stop):
        measure(x[c], c, moving, statistics)
        normalise(x[c], statistics[0, c], weight[c] * statistics[1, c], bias[c], rectify, y[c])


@kernel
def batch_norm_pool(
    x,
    weight,
    bias,
    running_mean,
    running_var,
    training,
    momentum,
    eps,
    rectify,
    window,
    N,
    planes,
    y,
    winner,
    statistics,
):  # x [C, D, H, W N] -> y, winner [C, Do, Ho, Wo N]; planes [threads, D, H, W N]
    moving = running_mean, running_var, training, momentum, eps
    arguments = x, weight, bias, moving, rectify, window, N, planes, y, winner, statistics
    parallel_for(y.shape[0], normalise_and_pool_channels, arguments)


@helper
def normalise_and_pool_channels(
    start, stop, x, weight, bias, moving, rectify, window, N, planes, y, winner, statistics
):
    kernel_size, stride, dilation, padding = window
    _, Do, Ho, _ = y.shape
    nobody = winner.dtype.type(kernel_size[0] * kernel_size[1] * kernel_size[2])
    plane = planes[numba.get_thread_id()]
    for c in range(start, stop):
        row = x[c].reshape(-1)
        measure(row, c, moving, statistics)
        normalise(row, statistics[0, c], weight[c] * statistics[1, c], bias[c], False, plane.reshape(-1))
        for p in range(Do):
            for q in range(Ho):
                pool_row(plane, p, q, kernel_size, stride, dilation, padding, N, y[c, p, q], winner[c, p, q])
                if rectify:
                    rectify_and_mark(y[c, p, q], winner[c, p, q], nobody)


@helper
def sums_with(dy, y, rectified, x, centre, g):
    """The sums of g and of g * (x - centre), with g = dy, or dy where y > 0 if `rectified`; rows [L]."""
    step = 4 * width(x)
    whole = x.size // step * step
    total, products = 0.0, 0.0
    for start in range(0, whole, CHUNK * step):
        sums, weighted = zeros(x, 1, 4), zeros(x, 1, 4)
        for i in range(start, min(start + CHUNK * step, whole), step):
            gradient = load(dy, i, 4)
            if rectified:
                gradient = where_positive(gradient, load(y, i, 4))
                store(gradient, g, i, 0, None)
            sums = plus(sums, gradient)
            weighted = multiply_add(gradient, minus(load(x, i, 4), centre), weighted)
        total += sum_of(sums)
        products += sum_of(weighted)
    for i in range(whole, x.size):
        gradient = dy[i]
        if rectified:
            gradient = gradient if not y[i] <= 0 else x.dtype.type(0)
            g[i] = gradient
        total += gradient
        products += gradient * (x[i] - centre)
    return total, products


@helper
def centre_gradient(g, x, centre, offset, slope, scale, dx):
    """dx = scale * (g - offset - (x - centre) * slope); rows [L], g and dx may be the same."""
    step = 4 * width(x)
    whole = x.size // step * step
    for i in range(0, whole, step):
        rest = multiply_add(minus(load(x, i, 4), centre), -slope, minus(load(g, i, 4), offset))
        store(times(rest, scale), dx, i, 0, None)
    for i in range(whole, x.size):
        dx[i] = scale * (g[i] - offset - (x[i] - centre) * slope)


@helper
def backward_row(dy, y, rectified, x, c, statistics, weight, dx, dweight, dbias):
    """The gradients of channel c; dx, [L], first holds the dy that passed the ReLU."""
    kind = x.dtype.type
    mean, rstd = statistics[0, c], statistics[1, c]
    total, product = sums_with(dy, y, rectified, x, mean, dx)
    product *= rstd
    dweight[c] += product
    dbias[c] += total
    offset, slope = kind(total / x.size), kind(product * rstd / x.size)
    centre_gradient(dx if rectified else dy, x, mean, offset, slope, weight[c] * rstd, dx)


@kernel
def batch_norm_backward(dy, y, rectified, x, statistics, weight, dx, dweight, dbias):
    """dy, x, dx [C, L], and y if there was a ReLU; statistics [2, C]; the others [C]."""
    parallel_for(x.shape[0], differentiate_channels, (dy, y, rectified, x, statistics, weight, dx, dweight, dbias))


@helper
def differentiate_channels(start, stop, dy, y, rectified, x, statistics, weight, dx, dweight, dbias):
    for c in range(start, stop):
        backward_row(dy[c], y[c], rectified, x[c], c, statistics, weight, dx[c], dweight, dbias)


@kernel
def batch_norm_pool_backward(dy, winner, x, statistics, weight, window, N, dx, dweight, dbias):
    """dy, winner [C, Do, Ho, Wo N], x, dx [C, D, H, W N]; statistics [2, C]; the others [C]."""
    arguments = dy, winner, x, statistics, weight, window, N, dx, dweight, dbias
    parallel_for(dx.shape[0], unpool_and_differentiate_channels, arguments)


@helper
def unpool_and_differentiate_channels(start, stop, dy, winner, x, statistics, weight, window, N, dx, dweight, dbias):
    kernel_size, stride, dilation, padding = window
    _, Do, Ho, _ = dy.shape
    for c in range(start, stop):
        plane = dx[c]
        clear(plane)
        for p in range(Do):
            for q in range(Ho):
                unpool_row(dy[c, p, q], winner[c, p, q], p, q, kernel_size, stride, dilation, padding, N, plane)
        g = plane.reshape(-1)
        backward_row(g, g, False, x[c].reshape(-1), c, statistics, weight, g, dweight, dbias)
