"""Whether values are finite, on a compiled loop."""

from __future__ import annotations

from torch import Tensor

from cnn.ops.cpu.arrays import flat
from cnn.ops.cpu.kernels import finite as kernels


def require_finite(tensor: Tensor, fault: type[Exception]) -> None:
    bits = flat(tensor).view("i4" if tensor.itemsize == 4 else "i8")
    kernels.find_not_finite.check(lambda _: fault(), bits, kernels.INFINITE[tensor.itemsize])
