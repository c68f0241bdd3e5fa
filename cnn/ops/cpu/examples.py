"""Batches on compiled loops."""

from __future__ import annotations

from torch import Tensor

from cnn.ops.cpu.arrays import array
from cnn.ops.cpu.kernels import examples as kernels


def take_examples(x: Tensor, rows: Tensor, chosen: Tensor) -> None:
    def fault(_: int) -> Exception:
        return IndexError(f"not all chosen examples are among the {len(rows)} that there are")

    kernels.take_examples.check(fault, array(rows), array(chosen), array(x))
