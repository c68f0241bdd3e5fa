"""Checks of values in plain torch."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from cnn.ops.values import NotFinite


def require_finite(x: Tensor) -> None:
    if not bool(x.isfinite().all()):
        raise NotFinite


def require_within(numbers: Tensor, count: int, fault: Callable[[int], Exception]) -> None:
    strays = numbers.numel() - int(((numbers >= 0) & (numbers < count)).sum())
    if strays:
        raise fault(strays)
