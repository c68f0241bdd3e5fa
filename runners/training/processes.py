"""Processes that train one network together: how they sum tensors, and how they agree. So far, there is only one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor


class World(Protocol):
    """What a run needs from the processes that share its work."""

    rank: int
    """The index of this process, from 0."""
    size: int
    reduce: Callable[[Tensor], None] | None
    """Sums a tensor over all processes, in place; None for a single process."""

    def agree(self, signal: int | None) -> int | None:
        """A signal that any of the processes has received, or None."""


class Alone:
    """A single process."""

    rank = 0
    size = 1
    reduce: Callable[[Tensor], None] | None = None

    def agree(self, signal: int | None) -> int | None:
        return signal
