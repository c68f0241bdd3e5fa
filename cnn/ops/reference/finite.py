"""Whether values are finite, in plain torch."""

from __future__ import annotations

from torch import Tensor

from cnn.ops.values import NotFinite


def require_finite(x: Tensor) -> None:
    if not bool(x.isfinite().all()):
        raise NotFinite
