"""Calls on a CPU: recorded as a list of calls for native code, and repeated with as many threads as are faster."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from cnn.ops import memory, threads
from cnn.ops.capture import Recording
from cnn.ops.engine import MAX_KINDS, Recorded
from cnn.ops.governor import Governor
from cnn.ops.helpers import compiling_together

R = TypeVar("R")


class CpuEngine:
    """Records steps in an arena, and repeats calls with as many threads as are faster at present."""

    def __init__(self) -> None:
        self._governors: dict[Hashable, Governor] = {}
        self._arena: memory.Arena | None = None

    def own(self, inputs: Sequence[Tensor], *, borrowed: bool) -> list[Tensor]:
        return [tensor.clone() for tensor in inputs]

    def first(self, call: Callable[[], R]) -> R:
        self._arena = self._arena or memory.Arena()  # which takes less than the pool, and is freed for a recording
        with memory.only(self._arena), compiling_together(call):
            return call()

    def record(self, call: Callable[[], R], argument: Any, generators: Sequence[torch.Generator]) -> Recorded[R]:
        self._arena = None
        memory.empty_cache()  # what calls have used so far isn't needed next to the arena of the recording
        recording = Recording()
        with recording:
            result = call()
        tape = recording.tape()
        return Recorded(result, result, tape, recording.refused or "")

    def repeat(self, kind: Hashable, call: Callable[[], R], *, python: bool) -> R:
        if threads.are_fixed():
            return call()
        if kind not in self._governors:
            self._governors[kind] = Governor(threads.most_threads())
            while len(self._governors) > MAX_KINDS:  # kinds that are Python are remembered nowhere else
                del self._governors[next(iter(self._governors))]
        try:
            return self._governors[kind](call)
        finally:
            threads.use(threads.most_threads())

    def wait(self) -> None:
        pass
