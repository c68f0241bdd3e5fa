"""The loops that check values: whether they are infinite or NaN, by their bits as integers, and in a range."""

from __future__ import annotations

import numpy as np

from cnn.ops.cpu.codegen.compiler import kernel

INFINITE = {4: np.int32(0x7F800000), 8: np.int64(0x7FF0000000000000)}
"""The bits of infinity for each size in bytes. NaN has larger ones; the sign is left out."""


@kernel
def find_not_finite(bits, infinite):  # bits [L]
    """Returns 1 if there is one, else 0."""
    largest = infinite - infinite
    for i in range(bits.size):
        largest = max(largest, bits[i] & (infinite | (infinite - 1)))
    return 1 if largest >= infinite else 0


@kernel
def count_strays(numbers, count):  # numbers [L]
    """Returns how many aren't at least 0 and less than `count`."""
    strays = 0
    for i in range(numbers.size):
        if not 0 <= numbers[i] < count:
            strays += 1
    return strays
