"""Checks of values, which stop a step before it changes weights. They are part of a recorded step."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from cnn.ops.backend import choose
from cnn.ops.reference import finite as reference


def require_finite(x: Tensor) -> None:
    """Raise NotFinite if a value is infinite or NaN."""
    choose(reference.require_finite, x)(x)


def require_within(numbers: Tensor, count: int, fault: Callable[[int], Exception]) -> None:
    """Raise the fault for the number of values that aren't at least 0 and less than `count`, such as NaN, if any."""
    choose(reference.require_within, numbers)(numbers, count, fault)
