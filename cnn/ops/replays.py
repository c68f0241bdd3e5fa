"""Functions of tensors that are recorded once for each kind of call and then replayed without Python."""

from __future__ import annotations

import copy
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from torch import Tensor

from cnn.ops import memory, threads
from cnn.ops.capture import Recording, Tape, records
from cnn.ops.governor import Governor
from cnn.ops.helpers import compiling_together

A = TypeVar("A")
R = TypeVar("R")
MAX_KINDS = 8
"""Kinds of calls that are remembered; each one that is recorded keeps its activations."""

OTHER_VALUES, UNCHECKED = "a replay gives other values", "a replay can't be checked"


@dataclass
class Captured(Generic[A, R]):
    """A recorded call: the memory of its inputs, its operations, and its result, which each replay overwrites."""

    inputs: list[Tensor]
    tape: Tape
    result: R
    checked: bool = False

    def play(self, inputs: Sequence[Tensor], argument: A) -> R:
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given)
        self.tape.play(argument)
        return self.result


class Replays(Generic[A, R]):
    """Calls `run(inputs, argument)`, a function of tensors and of an argument that only `live` functions read.

    The first call of a kind runs as Python, the second one is recorded, and the third one runs both ways, as a check:
    if its result differs in a bit, or if it can't be recorded, calls of this kind stay Python. A result is valid until
    the next call. `refused`: the reasons, by kind. `enabled=False`: every call is Python.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        self.enabled = enabled
        self.refused: dict[Hashable, str] = {}
        self._governors: dict[Hashable, Governor] = {}
        self._arena: memory.Arena | None = None
        self._seen: OrderedDict[Hashable, Captured[A, R] | None] = OrderedDict()

    def run(self, inputs: Sequence[Tensor], argument: A) -> R:
        """The function as Python."""
        raise NotImplementedError

    def __call__(self, inputs: Sequence[Tensor], argument: A, kind: Hashable = None) -> R:
        """The function's result. Calls with inputs of other shapes or types are of another kind in any case."""
        if not inputs or not records(inputs[0].device):
            return self.run(inputs, argument)
        kind = kind, *((tensor.shape, tensor.dtype) for tensor in inputs)
        if not self.enabled or kind in self.refused:
            return self._governed(kind, lambda: self.run(inputs, argument))
        captured = self._seen.get(kind)
        if captured is not None and captured.checked:
            self._seen.move_to_end(kind)
            return self._governed(kind, lambda: captured.play(inputs, argument))
        if captured is not None:
            return self._check(kind, captured, inputs, argument)
        if not self._is_new(kind):
            return self._record(kind, inputs, argument)
        self._arena = self._arena or memory.Arena()  # which takes less than the pool, and is freed for a recording
        with memory.only(self._arena), compiling_together(lambda: self.run(inputs, argument)):
            return self.run(inputs, argument)

    def _governed(self, kind: Hashable, call: Callable[[], R]) -> R:
        """The result of a call with as many threads as are faster at present."""
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

    def check(self, captured: Captured[A, R], inputs: Sequence[Tensor], argument: A) -> tuple[R, str]:
        """The result, and why the call can't be replayed: empty if Python and a replay give the same bits."""
        with captured.tape.memory():
            expected = copy.deepcopy(self.run(inputs, argument))  # its memory is that of the replay
        try:
            same = digest(captured.play(inputs, argument)) == digest(expected)
        except Exception as error:
            return expected, f"{UNCHECKED} ({error})"
        return expected, "" if same else OTHER_VALUES

    def refuse(self, kind: Hashable, reason: str) -> None:
        """Let calls of a kind be Python from now on."""
        self._seen.pop(kind, None)
        self.refused[kind] = reason

    def _is_new(self, kind: Hashable) -> bool:
        """Remember a kind; returns whether it wasn't."""
        new = kind not in self._seen
        self._seen[kind] = None
        while len(self._seen) > MAX_KINDS:
            self._seen.popitem(last=False)
        return new

    def _record(self, kind: Hashable, inputs: Sequence[Tensor], argument: A) -> R:
        own = [tensor.clone() for tensor in inputs]
        self._arena = None
        memory.empty_cache()  # what calls have used so far isn't needed next to the arena of the recording
        recording = Recording()
        with recording:
            result = self.run(own, argument)
        tape = recording.tape()
        if tape is None:
            self.refuse(kind, f"{recording.refused}")
        else:
            self._seen[kind] = Captured(own, tape, result)
        return result

    def _check(self, kind: Hashable, captured: Captured[A, R], inputs: Sequence[Tensor], argument: A) -> R:
        result, problem = self.check(captured, inputs, argument)
        captured.checked = not problem
        if problem:
            self.refuse(kind, problem)
        return result


class Replayed(Replays[None, R]):
    """A function of tensors alone, such as a forward pass: `Replayed(lambda x: net.forward(x, mode)[0]).of(x)`."""

    def __init__(self, function: Callable[..., R], *, enabled: bool = True) -> None:
        super().__init__(enabled=enabled)
        self._function = function

    def run(self, inputs: Sequence[Tensor], argument: None) -> R:
        return self._function(*inputs)

    def of(self, *inputs: Tensor) -> R:
        """The function's result, valid until the next call."""
        return self(inputs, None)


def digest(value: Any) -> bytes:
    """A hash of the bits of a structure of tensors, arrays, numbers and texts: shorter than a copy.

    Raises TypeError if it can't tell what is in it.
    """
    found = hashlib.blake2b()
    _add_bits(value, found.update)
    return found.digest()


def _add_bits(value: Any, add: Callable[[Any], None]) -> None:
    if isinstance(value, Tensor):
        value = value.cpu().numpy()
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        add(f"{value.dtype} {value.shape};".encode())
        add(np.ascontiguousarray(value).reshape(-1).view(np.uint8))
    elif value is None or isinstance(value, (bool, int, float, str)):
        add(f"{value!r};".encode())
    elif isinstance(value, (tuple, list)):
        add(f"{len(value)} values;".encode())
        for item in value:
            _add_bits(item, add)
    elif isinstance(value, Mapping) or getattr(value, "__dict__", None):
        fields = value if isinstance(value, Mapping) else vars(value)
        add(f"{type(value).__name__};".encode())
        _add_bits([*fields.items()], add)
    else:
        raise TypeError(f"what a {type(value).__name__} holds isn't known")
