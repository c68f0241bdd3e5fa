"""Checks of values on compiled loops."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from cnn.ops.cpu.arrays import flat
from cnn.ops.cpu.kernels import finite as kernels
from cnn.ops.values import NotFinite


def require_finite(x: Tensor) -> None:
    bits = flat(x).view("i4" if x.itemsize == 4 else "i8")
    kernels.find_not_finite.check(lambda _: NotFinite(), bits, kernels.INFINITE[x.itemsize])


def require_within(numbers: Tensor, count: int, fault: Callable[[int], Exception]) -> None:
    kernels.count_strays.check(fault, flat(numbers), count)
