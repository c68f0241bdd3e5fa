"""What operations take and give together."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from cnn.ops.window import Window

Reduce = Callable[[Tensor], None]
"""Adds up a tensor over all processes, in place."""

Gradients = tuple[Tensor, Tensor]
"""dweight and dbias, which a backward pass adds to."""


class Running(NamedTuple):
    """The statistics that batch norm remembers: running <- running + momentum * (batch - running); mean, var [C]."""

    mean: Tensor
    var: Tensor
    momentum: float
    eps: float


class PoolReLU(NamedTuple):
    """What follows a normalisation in the same pass: a max pool with this window, a ReLU, or both."""

    window: Window | None
    rectify: bool


class Route(NamedTuple):
    """The way of gradients back through a max pool and a ReLU.

    With a window, `values` is the winner of each position, one more than the taps' numbers where the ReLU cut it off;
    without one it is y, whose zeros let nothing through.
    """

    values: Tensor
    window: Window | None
