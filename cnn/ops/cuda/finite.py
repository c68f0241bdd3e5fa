"""Checks of values on a GPU: at once in Python, and as a flag that is read later in a recorded step."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from cnn.ops import capture
from cnn.ops.cuda.kernels import guard as kernels
from cnn.ops.cuda.launching import blocks, launch
from cnn.ops.reference import finite as reference

BLOCK = 4096


def require_finite(x: Tensor) -> None:
    fault = capture.fault_flag()
    if fault is None:
        reference.require_finite(x)
    else:
        launch(kernels.find_not_finite, (blocks(x.numel(), BLOCK),), x.contiguous(), fault, x.numel(), BLOCK)


def require_within(numbers: Tensor, count: int, fault: Callable[[int], Exception]) -> None:
    flag = capture.fault_flag()
    if flag is None:
        reference.require_within(numbers, count, fault)
    else:
        size = numbers.numel()
        launch(kernels.find_strays, (blocks(size, BLOCK),), numbers.contiguous(), flag, size, count, BLOCK)
