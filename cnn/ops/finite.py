"""Checks of values, which stop a step before it changes weights. They are part of a recorded step.

Where steps can't stop, as on a GPU, a recorded one notes a fault in a flag instead (`graphs.py`).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from cnn.ops import capture
from cnn.ops.backend import choose
from cnn.ops.reference import finite as reference
from cnn.ops.reference import guard


def require_finite(x: Tensor) -> None:
    """Raise NotFinite if a value is infinite or NaN."""
    flag = capture.fault_flag()
    if flag is None:
        choose(reference.require_finite, x)(x)
    else:
        choose(guard.note_not_finite, x)(x, flag)


def require_within(numbers: Tensor, count: int, fault: Callable[[int], Exception]) -> None:
    """Raise the fault for the number of values that aren't at least 0 and less than `count`, such as NaN, if any."""
    flag = capture.fault_flag()
    if flag is None:
        choose(reference.require_within, numbers)(numbers, count, fault)
    else:
        choose(guard.note_strays, numbers)(numbers, count, flag)
