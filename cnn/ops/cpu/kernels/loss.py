"""The loop of cross entropy."""

from __future__ import annotations

import numpy as np

from cnn.ops.cpu.codegen.compiler import helper, kernel
from cnn.ops.cpu.codegen.parallel import parallel_for

COLUMNS = 256
"""The number of columns of logits in one partial sum."""


@kernel
def cross_entropy(logits, target, weight, label_smoothing, value, gradient):
    """Returns the number of targets that aren't classes. logits, gradient [K, L], target [L], weight [K], value [1]."""
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
        return strays
    share = 1.0 if norm == 0 else 1 / norm
    spread = label_smoothing / K
    losses = np.zeros((L + COLUMNS - 1) // COLUMNS)
    scale = label_smoothing, spread, share, all_weights
    parallel_for(losses.size, add_losses, (logits, target, weight, scale, gradient, losses))
    all_losses = 0.0
    for part in range(losses.size):
        all_losses += losses[part]
    value[0] = all_losses * share
    return 0


@helper
def add_losses(start, stop, logits, target, weight, scale, gradient, losses):
    label_smoothing, spread, share, all_weights = scale
    for part in range(start, stop):
        for n in range(part * COLUMNS, min(target.size, (part + 1) * COLUMNS)):
            hit = (1 - label_smoothing) * weight[target[n]]
            losses[part] += column_loss(logits, n, target[n], weight, hit, spread, share, all_weights, gradient)


@helper
def column_loss(logits, n, t, weight, hit, spread, share, all_weights, gradient):
    """The loss of column n, and its gradient. The target t has weight `hit`, each class `spread` times its own."""
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
