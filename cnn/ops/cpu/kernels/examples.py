"""The loop that gathers examples."""

from __future__ import annotations

from numba import prange

from cnn.ops.cpu.codegen.compiler import kernel

STRIP = 32
"""Values of each example that are moved at once, so that reads along and writes across examples stay in cache."""


@kernel
def take_examples(rows, chosen, x):
    """Returns True, without doing anything, for unknown examples. rows [examples, P], chosen [N], x [P, N]."""
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
