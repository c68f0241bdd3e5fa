"""Values that operations take and return together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from cnn.ops.window import Window

Reduce = Callable[[Tensor], None]
"""Sums a tensor over all processes, in place."""

Gradients = tuple[Tensor, Tensor]
"""dweight and dbias, to which a backward pass adds."""


class NotFinite(Exception):
    """A training step found a loss or gradient that is infinite or NaN, and changed no weights.

    `argument`: that of the replay which found it, if that is known only now, some replays later; else None.
    """

    def __init__(self, argument: Any = None) -> None:
        super().__init__()
        self.argument = argument


class Running(NamedTuple):
    """The running statistics of batch norm, [C]: running <- running + momentum * (batch - running)."""

    mean: Tensor
    var: Tensor
    momentum: float
    eps: float


class PoolReLU(NamedTuple):
    """What follows a normalisation in the same pass: a max pool with this window, a ReLU, or both."""

    window: Window | None
    rectify: bool


class Route(NamedTuple):
    """How gradients go back through a max pool and a ReLU.

    With a window, `values` is the winning tap of each position, or the number of taps where the ReLU is zero. Without
    one, it is y, whose zeros stop gradients.
    """

    values: Tensor
    window: Window | None
