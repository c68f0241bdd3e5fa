"""The check that stops a step before it changes weights."""

from __future__ import annotations

from torch import Tensor

from cnn.ops.backend import choose
from cnn.ops.reference import finite as reference


def require_finite(x: Tensor) -> None:
    """Raise NotFinite if a value is infinite or NaN."""
    choose(reference.require_finite, x)(x)
