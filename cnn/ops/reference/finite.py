"""Whether values are finite, in plain torch."""

from __future__ import annotations

from torch import Tensor


def require_finite(tensor: Tensor, fault: type[Exception]) -> None:
    if not bool(tensor.isfinite().all()):
        raise fault
