"""Sums in a fixed order."""

from __future__ import annotations

import numpy as np

from cnn.ops.cpu.codegen.compiler import helper

LANES = 64
"""The number of partial sums of a row: additions vectorise and still have a fixed order."""


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
