"""The loops that clear and count."""

from __future__ import annotations

from cnn.ops.cpu.codegen.compiler import helper, kernel
from cnn.ops.cpu.codegen.parallel import parallel_for
from cnn.ops.cpu.kernels.window import clear


@kernel
def clear_all(x):  # x [L]
    parallel_for(x.size, clear_some, (x,))


@helper
def clear_some(start, stop, x):
    clear(x[start:stop])


@helper
def largest(x, n):
    """The index of the largest value of column n: x [K, N]."""
    best = 0
    for k in range(1, x.shape[0]):
        if x[k, n] > x[best, n] or (x[k, n] != x[k, n] and x[best, n] == x[best, n]):
            best = k
    return best


@kernel
def argmax(x, y):  # x [K, N] -> y [N]
    for n in range(y.size):
        y[n] = largest(x, n)


@kernel
def count_hits(scores, target, hits):  # scores [K, N], target [N], hits [1]
    count = 0
    for n in range(target.size):
        count += largest(scores, n) == target[n]
    hits[0] = count
