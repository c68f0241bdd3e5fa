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
    sums = np.zeros((3, (L + COLUMNS - 1) // COLUMNS))  # losses, weights of the targets, targets that are no class
    spread = label_smoothing / K
    all_weights = weight.sum()
    for part in prange(sums.shape[1]):
        for n in range(part * COLUMNS, min(L, (part + 1) * COLUMNS)):
            t = target[n]
            if not 0 <= t < K:
                sums[2, part] += 1
                continue
            largest = logits[0, n]
            for k in range(1, K):
                largest = max(largest, logits[k, n])
            total = 0.0
            for k in range(K):
                gradient[k, n] = np.exp(logits[k, n] - largest)
                total += gradient[k, n]
            log_total = np.log(total)
            hit = (1 - label_smoothing) * weight[t]
            loss = hit * (log_total - (logits[t, n] - largest))
            for k in range(K):
                if label_smoothing:
                    loss += spread * weight[k] * (log_total - (logits[k, n] - largest))
                gradient[k, n] = gradient[k, n] / total * (hit + spread * all_weights) - spread * weight[k]
            gradient[t, n] -= hit
            sums[0, part] += loss
            sums[1, part] += weight[t]
    norm = sums[1].sum()
    share = 0.0 if norm == 0 else 1 / norm
    for k in prange(K):
        for n in range(L):
            gradient[k, n] *= share
    return sums[0].sum() * share, int(sums[2].sum())
