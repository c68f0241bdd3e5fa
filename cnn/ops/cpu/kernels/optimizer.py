"""The loop of Adam."""

from __future__ import annotations

import numpy as np

from cnn.ops.cpu.codegen.compiler import helper, kernel
from cnn.ops.cpu.codegen.parallel import parallel_for


@kernel
def adam(
    data, gradient, mean, square, b1, b2, rest1, rest2, eps, step, correction
):  # vectors [P]; rest = 1 - b; step, correction [1]
    numbers = b1, b2, rest1, rest2, eps, step[0], correction[0]
    parallel_for(data.size, adam_part, (data, gradient, mean, square, numbers))


@helper
def adam_part(start, stop, data, gradient, mean, square, numbers):
    data, gradient, mean, square = data[start:stop], gradient[start:stop], mean[start:stop], square[start:stop]
    b1, b2, rest1, rest2, eps, step, correction = numbers
    for i in range(data.size):
        g = gradient[i]
        mean[i] = b1 * mean[i] + rest1 * g
        square[i] = b2 * square[i] + rest2 * g * g
        data[i] -= step * mean[i] / (np.sqrt(square[i]) * correction + eps)
