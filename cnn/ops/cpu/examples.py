"""Batches on compiled loops."""

from __future__ import annotations

from torch import Tensor

from cnn.ops.cpu.arrays import array
from cnn.ops.cpu.kernels import examples as kernels


def take_examples(x: Tensor, rows: Tensor, chosen: Tensor) -> None:
    if kernels.take_examples(array(rows), array(chosen), array(x)):
        raise IndexError(f"not all chosen examples are among the {len(rows)} that there are")
