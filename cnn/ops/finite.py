"""The check that stops a step before it changes weights."""

from __future__ import annotations

from torch import Tensor

from cnn.ops.backend import choose
from cnn.ops.reference import finite as reference


class NotFinite(Exception):
    """A training step found a loss or gradient that is infinite or NaN, and changed no weights."""


def require_finite(*tensors: Tensor) -> None:
    """Raise NotFinite if a value is infinite or NaN. Tensors are contiguous."""
    for tensor in tensors:
        choose(reference.require_finite, tensor)(tensor, NotFinite)
