"""How calls are recorded and replayed: on a CPU as a list of calls for native code, on a GPU as a CUDA graph.

`replays.py` decides when a call is recorded, and whether a recording is right; an engine does it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

R = TypeVar("R")
MAX_KINDS = 8
"""Kinds of calls that are remembered; each one that is recorded keeps its activations."""


class Playable(Protocol):
    """A recorded call."""

    def memory(self) -> AbstractContextManager[None]:
        """A context in which other operations may use the memory of the call, as long as it isn't played."""

    def play(self, argument: Any) -> None:
        """Run the call again. Raises what its checks raise, or what those of an earlier play have found since."""


@dataclass
class Recorded(Generic[R]):
    """A call that ran and was recorded: its result, and the one that each replay overwrites.

    Without a tape it can't be replayed, and `refused` says why.
    """

    result: R
    replayed: R
    tape: Playable | None
    refused: str = ""


class Engine(Protocol):
    """Records and repeats calls on one device, for one `Replays`."""

    def own(self, inputs: Sequence[Tensor], *, borrowed: bool) -> list[Tensor]:
        """Memory for the inputs of a recording, with their values. `borrowed`: it may be that of the inputs."""

    def first(self, call: Callable[[], R]) -> R:
        """The result of the first call of a kind."""

    def record(self, call: Callable[[], R], argument: Any, generators: Sequence[torch.Generator]) -> Recorded[R]:
        """Run a call, and record it. `generators`: those that it draws from."""

    def repeat(self, kind: Hashable, call: Callable[[], R], *, python: bool) -> R:
        """The result of a later call of a kind, which is Python or a replay."""

    def wait(self) -> None:
        """Wait for all replays. Raises what their checks have found."""
