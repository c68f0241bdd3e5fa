"""Functions of tensors that are recorded once for each kind of call and then replayed without Python."""

from __future__ import annotations

import copy
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from cnn.ops import precision
from cnn.ops.capture import records
from cnn.ops.cpu_engine import CpuEngine
from cnn.ops.engine import MAX_KINDS, Engine, Playable

A = TypeVar("A")
R = TypeVar("R")
OTHER_VALUES, UNCHECKED = "a replay gives other values", "a replay can't be checked"


@dataclass
class Captured(Generic[A, R]):
    """A recorded call: the memory of its inputs, its operations, and its result, which each replay overwrites."""

    inputs: list[Tensor]
    tape: Playable
    result: R
    checked: bool = False

    def play(self, inputs: Sequence[Tensor], argument: A) -> R:
        for own, given in zip(self.inputs, inputs, strict=True):
            if own.data_ptr() != given.data_ptr() or own.stride() != given.stride():
                own.copy_(given)
        self.tape.play(argument)
        return self.result


class Replays(Generic[A, R]):
    """Calls `run(inputs, argument)`, a function of tensors and of an argument that only `live` functions read.

    The first call of a kind runs as Python, the second one is recorded, and the third one runs both ways, as a check:
    if its result differs in a bit, or if it can't be recorded, calls of this kind stay Python. A result is valid until
    the next call. `refused`: the reasons, by kind. `enabled=False`: every call is Python. `borrows`: whether the memory
    of inputs may be overwritten by later ones, which saves copies where it is the same in each call.
    """

    def __init__(self, *, enabled: bool = True, borrows: bool = False) -> None:
        self.enabled = enabled
        self.borrows = borrows
        self.refused: dict[Hashable, str] = {}
        self._engine: Engine | None = None
        self._seen: OrderedDict[Hashable, Captured[A, R] | None] = OrderedDict()

    def run(self, inputs: Sequence[Tensor], argument: A) -> R:
        """The function as Python."""
        raise NotImplementedError

    def __call__(self, inputs: Sequence[Tensor], argument: A, kind: Hashable = None) -> R:
        """The function's result. Calls with inputs of other shapes or types are of another kind in any case."""
        if not inputs or not records(inputs[0].device):
            return self.run(inputs, argument)
        engine = self._engine = self._engine or _engine_for(inputs[0].device)
        kind = kind, precision.chosen(), *((tensor.shape, tensor.dtype) for tensor in inputs)
        if not self.enabled or kind in self.refused:
            return engine.repeat(kind, lambda: self.run(inputs, argument), python=True)
        captured = self._seen.get(kind)
        if captured is not None and captured.checked:
            self._seen.move_to_end(kind)
            return engine.repeat(kind, lambda: captured.play(inputs, argument), python=False)
        if captured is not None:
            engine.wait()
            return self._check(kind, captured, inputs, argument)
        if not self._is_new(kind):
            return self._record(engine, kind, inputs, argument)
        return engine.first(lambda: self.run(inputs, argument))

    def wait(self) -> None:
        """Wait for all calls. Raises what the checks of a replay have found, if nobody has waited for it yet."""
        if self._engine is not None:
            self._engine.wait()

    def generators(self, argument: A) -> Sequence[torch.Generator]:
        """The generators that a call draws from."""
        return ()

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

    def _record(self, engine: Engine, kind: Hashable, inputs: Sequence[Tensor], argument: A) -> R:
        own = engine.own(inputs, borrowed=self.borrows)
        recorded = engine.record(lambda: self.run(own, argument), argument, self.generators(argument))
        if recorded.tape is None:
            self.refuse(kind, recorded.refused)
        else:
            self._seen[kind] = Captured(own, recorded.tape, recorded.replayed)
        return recorded.result

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


def _engine_for(device: torch.device) -> Engine:
    """A new engine for a device on which calls can be recorded."""
    if device.type == "cpu":
        return CpuEngine()
    from cnn.ops.graphs import Cuda, GraphEngine

    return GraphEngine(Cuda(device))


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
