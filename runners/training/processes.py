"""The processes that train one network together: how they add up tensors, and how they agree. Here, there is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor


class World(Protocol):
    """What a run asks of the processes that it shares its work with."""

    rank: int
    """This process, from 0."""
    size: int
    reduce: Callable[[Tensor], None] | None
    """Adds up a tensor over all processes, in place; None where there is nothing to add up."""

    def agree(self, signal: int | None) -> int | None:
        """The signal that any of the processes has received, or None."""


class Alone:
    """One process."""

    rank = 0
    size = 1
    reduce: Callable[[Tensor], None] | None = None

    def agree(self, signal: int | None) -> int | None:
        return signal
