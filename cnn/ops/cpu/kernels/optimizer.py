"""The loop of Adam."""

from __future__ import annotations

import numpy as np
from numba import prange

from cnn.ops.cpu.codegen.compiler import kernel


@kernel
def adam(data, gradient, mean, square, b1, b2, rest1, rest2, eps, step, correction):  # vectors [P]; rest = 1 - b
    for i in prange(data.size):
        g = gradient[i]
        mean[i] = b1 * mean[i] + rest1 * g
        square[i] = b2 * square[i] + rest2 * g * g
        data[i] -= step * mean[i] / (np.sqrt(square[i]) * correction + eps)
