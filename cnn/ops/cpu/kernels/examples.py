"""The loop that gathers examples."""

from __future__ import annotations

from cnn.ops.cpu.codegen.compiler import helper, kernel
from cnn.ops.cpu.codegen.parallel import parallel_for

STRIP = 32
"""Values of each example that are moved at once, so that reads along and writes across examples stay in cache."""


@kernel
def take_examples(rows, chosen, x):
    """Returns 1, without doing anything, for unknown examples. rows [examples, P], chosen [N], x [P, N]."""
    P, N = x.shape
    for n in range(N):
        if not 0 <= chosen[n] < rows.shape[0]:
            return 1
    parallel_for((P + STRIP - 1) // STRIP, take_strips, (rows, chosen, x))
    return 0


@helper
def take_strips(start, stop, rows, chosen, x):
    P, N = x.shape
    for strip in range(start, stop):
        for n in range(N):
            row = rows[chosen[n]]
            for p in range(strip * STRIP, min(P, (strip + 1) * STRIP)):
                x[p, n] = row[p]
