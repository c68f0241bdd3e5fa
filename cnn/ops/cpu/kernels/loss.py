"""The loops behind `compiled.py`, on numpy arrays, compiled by numba at first use and cached on disk.

Three spatial axes serve one, two and three: missing ones have size 1. The batch is the innermost, contiguous axis, so
every inner loop vectorises however small the image is. Each `prange` writes to places of its own: results don't depend
on the number of threads.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from cnn.ops.compiler import helper, kernel

LANES = 64
"""Partial sums of a row, so that they vectorise although the order of additions is written down."""


@helper
def total(row):
    """The sum of a row, [L], in float64."""
    partial = np.zeros(LANES)
    for start in range(0, row.size, LANES):
        block = row[start : start + LANES]
        for k in range(block.size):
            partial[k] += block[k]
    return in_order(partial)


@helper
def in_order(values):
    """The sum of values, [LANES], from the first to the last."""
    result = 0.0
    for k in range(values.size):
        result += values[k]
    return result


STRIP = 32
"""Values of each example that are moved at once: reading along examples and writing across them stays in cache."""


@kernel
def take_examples(rows, chosen, x):
    """Whether some of the chosen are no examples, and nothing is done; rows [examples, P], chosen [N], x [P, N]."""
    P, N = x.shape
    for n in range(N):
        if not 0 <= chosen[n] < rows.shape[0]:
            return True
    for strip in prange((P + STRIP - 1) // STRIP):
        for n in range(N):
            row = rows[chosen[n]]
            for p in range(strip * STRIP, min(P, (strip + 1) * STRIP)):
                x[p, n] = row[p]
    return False


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
def adam(data, gradient, mean, square, b1, b2, rest1, rest2, eps, step, correction):  # vectors [P]; rest = 1 - b
    for i in prange(data.size):
        g = gradient[i]
        mean[i] = b1 * mean[i] + rest1 * g
        square[i] = b2 * square[i] + rest2 * g * g
        data[i] -= step * mean[i] / (np.sqrt(square[i]) * correction + eps)


COLUMNS = 256
"""Columns of logits whose losses make one partial sum."""


@kernel
def cross_entropy(logits, target, weight, label_smoothing, gradient):
    """The mean loss, and how many targets are no class; logits, gradient [K, L], target [L], weight [K]."""
    K, L = logits.shape
    norm, all_weights, strays = 0.0, 0.0, 0
    for k in range(K):
        all_weights += weight[k]
    for n in range(L):
        if 0 <= target[n] < K:
            norm += weight[target[n]]
        else:
            strays += 1
    if strays:
        return 0.0, strays
    share = 0.0 if norm == 0 else 1 / norm
    spread = label_smoothing / K
    losses = np.zeros((L + COLUMNS - 1) // COLUMNS)
    for part in prange(losses.size):
        for n in range(part * COLUMNS, min(L, (part + 1) * COLUMNS)):
            hit = (1 - label_smoothing) * weight[target[n]]
            losses[part] += column_loss(logits, n, target[n], weight, hit, spread, share, all_weights, gradient)
    value = 0.0
    for part in range(losses.size):
        value += losses[part]
    return value * share, 0


@helper
def column_loss(logits, n, t, weight, hit, spread, share, all_weights, gradient):
    """The loss of column n, and its gradient; its target t weighs `hit`, every class `spread` times its weight."""
    K = logits.shape[0]
    largest = logits[0, n]
    for k in range(1, K):
        largest = max(largest, logits[k, n])
    total = 0.0
    for k in range(K):
        gradient[k, n] = np.exp(logits[k, n] - largest)
        total += gradient[k, n]
    log_total = np.log(total)
    loss = hit * (log_total - (logits[t, n] - largest))
    scale = (hit + spread * all_weights) / total
    for k in range(K):
        if spread:
            loss += spread * weight[k] * (log_total - (logits[k, n] - largest))
        gradient[k, n] = (gradient[k, n] * scale - spread * weight[k]) * share
    gradient[t, n] -= hit * share
    return loss
