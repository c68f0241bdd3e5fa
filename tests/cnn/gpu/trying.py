"""How Triton kernels are tried, wherever they run: their errors next to the reference set in float64.

Every output is filled with NaN first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from cnn import ops
from cnn.ops import cuda, memory

Tensors = dict[str, Tensor]


class Where(NamedTuple):
    """Device, dtype and number of examples of a case."""

    device: str
    dtype: torch.dtype
    batch: int


Case = Callable[[Where], tuple[Tensors, Tensors]]
"""Returns what the kernels give and what is right, by name."""

CASES: dict[str, Case] = {}
FUNCTIONS = cuda.BACKEND.functions


def run(name: str, where: Where, times: int = 1) -> dict[str, float]:
    """The relative error of each output of a case; infinite where it differs from one time to another."""
    with poisoned(), ops.kernels("reference"):
        found, right = CASES[name](where)
        others = [CASES[name](where)[0] for _ in range(times - 1)]
    errors = {key: error(value, right[key]) for key, value in found.items()}
    for key in errors:
        if not all(torch.equal(found[key].nan_to_num(1.5), other[key].nan_to_num(1.5)) for other in others):
            errors[key] = math.inf
    return errors


def error(found: Tensor, right: Tensor) -> float:
    """max |a - b| / max |b|; infinite if shapes differ, or NaN and infinity are elsewhere."""
    a, b = found.double().cpu(), right.double().cpu()
    finite = b.isfinite()
    if a.shape != b.shape or not torch.equal(a[~finite].nan_to_num(1.5), b[~finite].nan_to_num(1.5)):
        return math.inf
    a, b = a[finite], b[finite]
    if not a.numel():
        return 0.0
    worst = float((a - b).abs().max() / b.abs().max().clamp(min=1e-30))
    return worst if math.isfinite(worst) else math.inf


@contextmanager
def poisoned() -> Iterator[None]:
    """Fill memory that kernels are to write to with NaN, or with 77."""

    def empty(shape: tuple[int, ...], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        made = memory.empty(shape, like, dtype)
        return made.fill_(math.nan if made.is_floating_point() else 77)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("activation", "conv", "counts", "linear", "loss", "norm", "pool"):
            patch.setattr(f"cnn.ops.cuda.{name}.empty", empty)
        yield


def case(name: str) -> Callable[[Case], Case]:
    def add(function: Case) -> Case:
        CASES[name] = function
        return function

    return add


class Numbers:
    """Random tensors: each value is the same on every device, rounded to the dtype of the case."""

    def __init__(self, where: Where) -> None:
        self.where = where
        self._generator = torch.Generator().manual_seed(where.batch)

    def __call__(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator, dtype=torch.float64).to(self.where.dtype)

    def integers(self, below: int, *shape: int) -> Tensor:
        return torch.randint(below, shape, generator=self._generator)

    def there(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Copies on the device."""
        return tuple(tensor.to(self.where.device).clone() for tensor in tensors)


def exact(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Copies in float64."""
    return tuple(tensor.double().clone() for tensor in tensors)
