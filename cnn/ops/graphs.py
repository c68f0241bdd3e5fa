"""Calls on a GPU as CUDA graphs: one launch for all kernels of a step.

A graph can't stop, and nobody waits for it. So a step that finds a value at fault, such as a gradient that isn't
finite, runs to its end, and then all that it has changed is put back, by the graph itself. The flag stays set until it
has been read, a step or two later, which keeps the steps after it from changing anything either.

What Python computes in each step (`ops.live`) runs before the graph, into tensors that the graph reads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from cnn.ops import capture, guard
from cnn.ops.engine import Recorded
from cnn.ops.inspection import Inspection
from cnn.ops.values import NotFinite

R = TypeVar("R")
MAX_QUEUED = 2
"""Replays whose flags needn't be known when the next one is queued: the GPU always has work, and no more."""


class Event(Protocol):
    """A point in the work that is queued on a device."""

    def query(self) -> bool: ...

    def synchronize(self) -> None: ...


class Device(Protocol):
    """What graphs need of a device."""

    device: torch.device

    def capture(self, call: Callable[[], R], generators: Sequence[torch.Generator]) -> tuple[R, Callable[[], None]]:
        """Record the work that a call queues, which isn't done; returns the call's result and what does the work."""

    def event(self) -> Event:
        """The end of what is queued now."""

    def pinned(self, like: Tensor) -> Tensor:
        """Memory of the host that copies can be queued to."""


class Cuda:
    """Graphs of CUDA."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def capture(self, call: Callable[[], R], generators: Sequence[torch.Generator]) -> tuple[R, Callable[[], None]]:
        graph = torch.cuda.CUDAGraph()
        for generator in generators:
            graph.register_generator_state(generator)
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                result = call()
        except Exception as error:  # torch's random numbers are unusable now
            cause = error.__context__ or error  # the end of a capture that failed raises another one
            raise RuntimeError(f"this call can't become a CUDA graph, give capture=false: {cause}") from error
        return result, graph.replay

    def event(self) -> Event:
        event: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        return event  # type: ignore[no-any-return]

    def pinned(self, like: Tensor) -> Tensor:
        return torch.empty(like.shape, dtype=like.dtype, pin_memory=True)


class Faults:
    """The flag of an engine's graphs, and which replays haven't been asked for it yet."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.flag = torch.zeros((), dtype=torch.int32, device=device.device)
        self._queued: deque[tuple[Any, Event, Tensor]] = deque()

    def note(self, argument: Any) -> None:
        """A replay with this argument has been queued: queue a copy of the flag."""
        copy = self._device.pinned(self.flag)
        copy.copy_(self.flag, non_blocking=True)
        self._queued.append((argument, self._device.event(), copy))

    def check(self, queued: int) -> None:
        """Raise NotFinite for the first replay that found a fault. Waits until at most `queued` are unknown."""
        while self._queued and (len(self._queued) > queued or self._queued[0][1].query()):
            argument, event, copy = self._queued.popleft()
            event.synchronize()
            if int(copy):
                self._queued.clear()
                self.flag.zero_()  # queued after the steps that were to change nothing
                raise NotFinite(argument)


class GraphRecording:
    """What is noted of a call while it runs and is inspected, and then again while it is captured."""

    def __init__(self, faults: Faults, inspection: Inspection) -> None:
        self._flag = faults.flag
        self._inspection = inspection
        self._guards: list[guard.Guard] = []
        self._captured_guards: Iterator[guard.Guard] | None = None
        self.live: list[Callable[[Any], object]] = []
        self.checks = False
        """Whether the call may find a fault."""

    def capture(self) -> None:
        """Note what is captured from now on. It isn't done, and what it needs of the host is there already."""
        self._captured_guards = iter(self._guards)

    @property
    def fault(self) -> Tensor:
        self.checks = True
        return self._flag

    def note_live(self, function: Callable[[Any], object], argument: Any) -> None:
        if self._captured_guards is None:
            with self._inspection.paused():
                function(argument)
        else:
            self.live.append(function)

    def note_kernel(self, kernel: Any, arguments: Sequence[Any], fault: Any) -> None:
        raise RuntimeError("a step on a GPU calls a kernel of the CPU")

    @contextmanager
    def undone_at_a_fault(self, tensors: Callable[[], Sequence[Tensor]]) -> Iterator[None]:
        if self._captured_guards is None:
            with self._inspection.paused():
                self._guards.append(self._guard(tensors()))
            held = self._guards[-1]
        else:
            held = next(self._captured_guards)
        held.save()
        yield
        held.put_back()

    def _guard(self, tensors: Sequence[Tensor]) -> guard.Guard:
        fitting = []
        for tensor in tensors:
            if reason := guard.why_not(tensor, self._flag.device):
                self._inspection.refuse(reason)
            else:
                fitting.append(tensor)
        return guard.Guard(fitting, self._flag)


@dataclass
class GraphTape:
    """A captured call."""

    replay: Callable[[], None]
    faults: Faults
    recording: GraphRecording

    def memory(self) -> AbstractContextManager[None]:
        return nullcontext()  # torch's own, which the graph keeps

    def play(self, argument: Any) -> None:
        self.faults.check(MAX_QUEUED)
        for function in self.recording.live:
            function(argument)
        self.replay()
        if self.recording.checks:
            self.faults.note(argument)


class GraphEngine:
    """Inspects calls, and captures those that can be."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._faults = Faults(device)

    def own(self, inputs: Sequence[Tensor], *, borrowed: bool) -> list[Tensor]:
        return list(inputs) if borrowed else [tensor.clone() for tensor in inputs]

    def first(self, call: Callable[[], R]) -> R:
        self.wait()
        return call()

    def record(self, call: Callable[[], R], argument: Any, generators: Sequence[torch.Generator]) -> Recorded[R]:
        self.wait()
        inspection = Inspection(self._device.device)
        recording = GraphRecording(self._faults, inspection)
        try:
            with capture.noting(recording), inspection:
                result = call()
        except Exception:
            self._faults.flag.zero_()  # nobody else would
            raise
        if recording.checks:
            self._faults.note(argument)
            self.wait()
        if inspection.refused:
            return Recorded(result, result, None, inspection.refused)
        recording.capture()
        with capture.noting(recording):
            replayed, replay = self._device.capture(call, generators)
        return Recorded(result, replayed, GraphTape(replay, self._faults, recording))

    def repeat(self, kind: Hashable, call: Callable[[], R], *, python: bool) -> R:
        if python:
            self.wait()
        return call()

    def wait(self) -> None:
        self._faults.check(0)
