"""Record the calls of one step with their memory, and replay them without the Python in between.

    recording = Recording()
    with recording:
        results = step(batch)               # runs as usual
    tape = recording.tape()                 # None if the step can't be replayed: `recording.refused` says why
    batch.copy_(next), tape.play(argument)  # the same calls on the same memory: `results` changes in place

While a step is recorded, its buffers come from an arena that the tape keeps, and every compiled kernel and every torch
operation is noted. A replay runs consecutive kernels as one call of native code. What isn't a tensor operation has to
be declared: `live` for what Python computes again in each step, `Kernel.check` for kernels that find faults. Tensors
whose values Python reads can't be replayed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cnn.ops import backend, memory
from cnn.ops.inspection import python_depends_on, tensors

Part = Callable[[Any], object]
"""One piece of a tape; its argument is that of `Tape.play`."""

T = TypeVar("T")


class Notes(Protocol):
    """What a call is noted in while it is recorded."""

    @property
    def fault(self) -> Tensor | None:
        """Where faults are noted, if the call doesn't stop at one."""

    def note_live(self, function: Callable[[T], object], argument: T) -> None:
        """Note a call of `live`."""

    def note_kernel(self, kernel: Any, arguments: Sequence[Any], fault: Callable[[int], Exception] | None) -> None:
        """Note the call of a compiled kernel."""

    def undone_at_a_fault(self, tensors: Callable[[], Sequence[Tensor]]) -> AbstractContextManager[None]:
        """See the function of this name."""


class _Thread(threading.local):
    """What belongs to one thread of Python: others may run steps, or record them, at the same time."""

    recording: Notes | None = None


_thread = _Thread()


@contextmanager
def noting(notes: Notes) -> Iterator[None]:
    """Note calls of this thread in a `with` block."""
    before, _thread.recording = _thread.recording, notes
    try:
        yield
    finally:
        _thread.recording = before


def live(function: Callable[[T], object], argument: T) -> None:
    """Call a function; a replay calls it again at this place, with the argument of `Tape.play` instead.

    The function may write into tensors that the step reads, such as numbers that depend on the learning rate.
    """
    if _thread.recording is None:
        function(argument)
    else:
        _thread.recording.note_live(function, argument)


def records(device: torch.device) -> bool:
    """Whether steps on a device can be recorded: those of compiled kernels on a CPU or a GPU of NVIDIA's."""
    return device.type in ("cpu", "cuda") and backend.chosen() == "compiled"


def undone_at_a_fault(tensors: Callable[[], Sequence[Tensor]]) -> AbstractContextManager[None]:
    """A context in which a step may change these tensors.

    A recorded step that can't stop at a fault goes on, and puts their values back at the end of the context.
    """
    recording = _thread.recording
    return nullcontext() if recording is None else recording.undone_at_a_fault(tensors)


def fault_flag() -> Tensor | None:
    """Where the kernels of a step on a GPU note a fault, as long as the step is recorded; None outside of a recording.

    Nobody waits for the flag: what runs after it must not depend on it, and the whole step is undone later.
    """
    recording = _thread.recording
    return None if recording is None else recording.fault


def note_kernel(kernel: Any, arguments: Sequence[Any], fault: Callable[[int], Exception] | None = None) -> None:
    """Note the call of a compiled kernel that has just run, if a step is recorded.

    `fault`: makes the exception for a code other than 0 that the kernel returns.
    """
    if _thread.recording is not None:
        _thread.recording.note_kernel(kernel, arguments, fault)


class Tape:
    """The calls of a step, to be played again on the same memory."""

    def __init__(self, parts: Sequence[Part], arena: memory.Arena) -> None:
        self._parts = parts
        self._arena = arena

    def memory(self) -> AbstractContextManager[None]:
        """A context in which other operations may use the memory of the step, as long as it isn't played."""
        return memory.only(self._arena)

    def play(self, argument: Any) -> None:
        """Run the step again. Raises what its checks raise."""
        for part in self._parts:
            part(argument)


class Recording(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context in which a step runs as usual and is recorded. `refused`: the first thing that can't be replayed."""

    fault: Tensor | None = None
    """A recorded step on a CPU stops at a fault."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.arena = memory.Arena()
        self.refused: str | None = None
        self._parts: list[Any] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # skipping it would import it, which takes a second

    def tape(self) -> Tape | None:
        """What was recorded, if it can be replayed."""
        try:
            return None if self.refused else Tape([*self._joined()], self.arena)
        except Exception as error:
            self._refuse(f"what was recorded can't be compiled: {type(error).__name__}: {error}")
            return None

    def __enter__(self) -> Recording:
        self._before = memory.use(self.arena), _thread.recording
        _thread.recording = self
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        pool, _thread.recording = self._before
        memory.use(pool)

    def undone_at_a_fault(self, tensors: Callable[[], Sequence[Tensor]]) -> AbstractContextManager[None]:
        return nullcontext()

    def note_live(self, function: Callable[[T], object], argument: T) -> None:
        self._parts.append(function)
        _thread.recording = None  # what the function does isn't recorded: it does it again
        super().__exit__(None, None, None)  # type: ignore[no-untyped-call]
        try:
            function(argument)
        finally:
            super().__enter__()  # type: ignore[no-untyped-call]
            _thread.recording = self

    def note_kernel(self, kernel: Any, arguments: Sequence[Any], fault: Callable[[int], Exception] | None) -> None:
        from cnn.ops.cpu.native import Call  # needs numba, as the kernel did

        try:
            self._parts.append(Call.of(kernel, arguments, fault, self.arena))
        except Exception as error:  # another version of the compiler may have other internals than those used there
            self._refuse(f"calls of kernels can't be recorded: {type(error).__name__}: {error}")

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name in _UNINITIALISED:
            return self._home(func(*args, **kwargs))
        result = func(*args, **kwargs)
        if reason := python_depends_on(func, args, result):
            self._refuse(reason)
            return result
        if func._schema.is_mutable:
            self._note(func, args, kwargs, None)
            return result
        outputs = list(result) if isinstance(result, (tuple, list)) else [result]
        given = {tensor.untyped_storage().data_ptr() for tensor in tensors((args, kwargs))}
        if all(output.untyped_storage().data_ptr() in given for output in outputs):
            return result  # views
        homes = [self._home(output) for output in outputs]
        for home, output in zip(homes, outputs, strict=True):
            home.copy_(output)
        self._note(func, args, kwargs, homes)
        return homes[0] if isinstance(result, Tensor) else type(result)(homes)

    def _note(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], homes: Sequence[Tensor] | None) -> None:
        args, kwargs = self._replaced(args), self._replaced(kwargs)
        if homes is None:
            self._parts.append(lambda _: func(*args, **kwargs))
        elif len(homes) == 1:
            home = self._replaced(homes[0])
            self._parts.append(lambda _: home.copy_(func(*args, **kwargs)))
        else:
            several = self._replaced(list(homes))
            self._parts.append(
                lambda _: [home.copy_(value) for home, value in zip(several, func(*args, **kwargs), strict=True)]
            )

    def _home(self, like: Tensor) -> Tensor:
        """Memory of the arena with the layout of a tensor."""
        extent = 1 + sum((size - 1) * step for size, step in zip(like.shape, like.stride(), strict=True))
        flat = self.arena.empty((extent if like.numel() else 0,), like.dtype)
        return flat.as_strided(like.shape, like.stride())

    def _replaced(self, value: Any) -> Any:
        """The arguments of an operation without claims on memory, which may be used again later in the step."""
        if isinstance(value, Tensor):
            return self.arena.unclaimed(value)
        if isinstance(value, (tuple, list)):
            return type(value)(self._replaced(item) for item in value)
        if isinstance(value, Mapping):
            return {key: self._replaced(item) for key, item in value.items()}
        return value

    def _refuse(self, reason: str) -> None:
        self.refused = self.refused or reason

    def _joined(self) -> Iterator[Part]:
        """The parts, with consecutive kernels as one."""
        kernels: list[Any] = []
        for part in self._parts:
            if callable(part):
                if kernels:
                    yield _native(kernels)
                    kernels = []
                yield part
            else:
                kernels.append(part)
        if kernels:
            yield _native(kernels)


_UNINITIALISED = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}


def _native(calls: Sequence[Any]) -> Part:
    from cnn.ops.cpu.native import Program

    return Program(calls)
