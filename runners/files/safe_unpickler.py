"""Decode a plain pickle without unpickling it: opcodes are read one by one, and nothing is ever called.

A small machine, which knows a few opcodes and three names of numpy, assembles dicts, lists, numbers, strings and
arrays. It refuses any opcode, name or sequence that `plain_pickle.write` doesn't produce, as soon as it meets it. So
what the machine holds is always plain data, and never much larger than the file.
"""

from __future__ import annotations

import io
import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from runners.errors import CheckpointError, printable

DTYPES = ("float32", "float64", "int64", "int32", "uint8", "bool")
OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
MAX_OPCODES = 500_000
"""A checkpoint has a few hundred, and thirty more for each array and epoch. Large files may have one per 4 bytes."""
MAX_TEXT_BYTES = 2**16
"""Longest string: a path, or the name of a weight deep in a network."""
MAX_REPEATED_CHARACTERS = 2**26
"""Total length of repeated strings, each repetition counted."""
MAX_DEPTH = 100
"""Nesting of lists and dicts: as deep as the config of the deepest model that `cnn` accepts."""
MAX_INTEGER = 2**64
MAX_ARRAY_SIZE = 2**48
MAX_AXES = 16


def decode(data: bytes) -> Any:
    """The plain data in a pickle. Raises CheckpointError if these bytes are anything else."""
    machine, stream = _Machine(), io.BytesIO(data)
    for _ in range(max(MAX_OPCODES, len(data) // 4)):
        opcode = OPCODES.get(stream.read(1))
        if opcode is None:
            raise CheckpointError("refused: it isn't a pickle, or has no end")
        if opcode.name == "STOP":
            if stream.read(1):
                raise CheckpointError("refused: it has data after its end")
            return machine.result()
        if opcode.name not in ACTIONS:
            raise CheckpointError(f"refused: it uses the opcode {opcode.name}, which no checkpoint needs")
        if opcode.name == "BINUNICODE":
            _check_text_length(data[stream.tell() : stream.tell() + 4])
        try:
            argument = opcode.arg.reader(stream) if opcode.arg else None
        except ValueError as error:  # truncated, or a string that isn't UTF-8
            raise CheckpointError(f"broken: {error}") from None
        ACTIONS[opcode.name](machine, argument)
    raise CheckpointError("refused: it has more opcodes than any checkpoint")


def _check_text_length(length: bytes) -> None:
    """Refuse a string by the length that precedes it, before it is read."""
    if int.from_bytes(length, "little") > MAX_TEXT_BYTES:
        raise CheckpointError(f"refused: it contains a string of more than {MAX_TEXT_BYTES:,} bytes")


@dataclass(frozen=True)
class _Name:
    """One of numpy's constructors, by name only."""

    name: str


_RECONSTRUCT, _NDARRAY, _DTYPE = _Name("_reconstruct"), _Name("ndarray"), _Name("dtype")
_NAMES = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _DTYPE,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,  # numpy 2
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,  # numpy 1
}


@dataclass(frozen=True)
class _Dtype:
    """The type of an array's values; BUILD sets its byte order later."""

    dtype: np.dtype[Any]


class _Unfilled:
    """An array whose shape, type and content BUILD sets later."""


class _Mark:
    """Where the items of a tuple, list or dict begin."""


class _Machine:
    """The stack and the memo of the pickle format."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: list[Any] = []
        self.repeated = 0

    def result(self) -> Any:
        if len(self.stack) != 1:
            raise CheckpointError("refused: it contains more than one object")
        content = _plain(self.stack.pop())
        _check_depth(content)
        return content

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack:
            raise CheckpointError("refused: it pops from an empty stack")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        items = []
        while not isinstance(item := self.pop(), _Mark):
            items.append(item)
        return items[::-1]

    def top(self, kind: type) -> Any:
        if not self.stack or type(self.stack[-1]) is not kind:
            raise CheckpointError(f"refused: it fills a {kind.__name__} that doesn't exist")
        return self.stack[-1]

    def integer(self, value: int) -> None:
        if abs(value) > MAX_INTEGER:
            raise CheckpointError("refused: it contains an integer of more than 64 bits")
        self.push(value)

    def recall(self, number: int) -> None:
        """Push a memoized value again, if it is immutable: everything else appears in one place, without cycles.

        The content of an array isn't pushed again either, as each array would copy it. Bytes objects of length 0 or 1
        are allowed, because Python itself shares them.
        """
        if number >= len(self.memo):
            raise CheckpointError("refused: it recalls a value that it hasn't memoized")
        value = self.memo[number]
        numbers = isinstance(value, tuple) and len(value) <= MAX_AXES and all(type(item) is int for item in value)
        single = isinstance(value, bytes) and len(value) <= 1
        if not (numbers or single or isinstance(value, str | _Name | _Dtype)):
            raise CheckpointError(f"refused: it contains the same {type(value).__name__} in two places")
        self.repeated += len(value) if isinstance(value, str) else 0
        if self.repeated > MAX_REPEATED_CHARACTERS:
            raise CheckpointError(f"refused: its repeated strings exceed {MAX_REPEATED_CHARACTERS:,} characters")
        self.push(value)

    def name(self) -> None:
        name, module = self.pop(), self.pop()
        if not (isinstance(module, str) and isinstance(name, str)) or (module, name) not in _NAMES:
            raise CheckpointError(f"refused: it asks for {_shown(module)}.{_shown(name)}, which no checkpoint needs")
        self.push(_NAMES[module, name])

    def tuple_of(self, count: int) -> None:
        self.push(tuple([self.pop() for _ in range(count)][::-1]))

    def append(self, items: list[Any]) -> None:
        self.top(list).extend(_plain(item) for item in items)

    def set_items(self, items: list[Any]) -> None:
        if len(items) % 2:
            raise CheckpointError("refused: it contains a key without a value")
        target = self.top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is not str:
                raise CheckpointError(f"contains a mapping with a {type(key).__name__} as a key; keys must be strings")
            if key in target:
                raise CheckpointError(f"contains a mapping with two values for {key!r:.80}")
            target[key] = _plain(value)

    def reduce(self) -> None:
        """Where pickle would call a function: start an array or its type."""
        arguments, function = self.pop(), self.pop()
        if function is _RECONSTRUCT and arguments == (_NDARRAY, (0,), b"b"):
            self.push(_Unfilled())
        elif function is _DTYPE and isinstance(arguments, tuple) and arguments[1:] == (False, True):
            self.push(_Dtype(_dtype(arguments[0])))
        else:
            raise CheckpointError("refused: it creates something that isn't a plain array")

    def build(self) -> None:
        """Where pickle would set an object's state: fill an array, or check the byte order of a type."""
        state, target = self.pop(), self.pop()
        if isinstance(target, _Unfilled):
            self.push(_array(state))
        elif isinstance(target, _Dtype) and isinstance(state, tuple) and len(state) == 8 and state[:1] == (3,):
            if state[1] not in ("<", "|") or state[2:] != (None, None, None, -1, -1, 0):
                raise CheckpointError(f"contains an array of byte order {_shown(state[1])}, only '<' is allowed")
            self.push(target)
        else:
            raise CheckpointError("refused: it changes something that isn't a plain array")


def _shown(value: object) -> str:
    return printable(value[:80]) if isinstance(value, str) else type(value).__name__


def _dtype(code: object) -> np.dtype[Any]:
    allowed = {np.dtype(name).str[1:]: np.dtype(name) for name in DTYPES}
    if not isinstance(code, str) or code not in allowed:
        raise CheckpointError(f"contains an array of {_shown(code)}, allowed are {', '.join(DTYPES)}")
    return allowed[code]


def _array(state: object) -> np.ndarray[Any, Any]:
    """A new array from its version, shape, type, order and bytes, all checked before anything is allocated."""
    if not isinstance(state, tuple) or len(state) != 5:
        raise CheckpointError("contains an invalid array")
    version, shape, kind, fortran, content = state
    if version != 1 or fortran is not False or not isinstance(kind, _Dtype) or not isinstance(content, bytes):
        raise CheckpointError("contains an array that isn't plain, C-contiguous data")
    if not isinstance(shape, tuple) or not all(type(size) is int and 0 <= size < MAX_ARRAY_SIZE for size in shape):
        raise CheckpointError("contains an array with an invalid shape")
    if len(shape) > MAX_AXES or math.prod(shape) * kind.dtype.itemsize != len(content):
        raise CheckpointError("contains an array whose bytes don't match its shape")
    if not content and math.prod(size or 1 for size in shape) >= MAX_ARRAY_SIZE:
        raise CheckpointError("contains an empty array whose other dimensions are too large")
    return np.frombuffer(content, kind.dtype).reshape(shape).copy()


def _plain(value: Any) -> Any:
    """The value, if a list or dict may contain it."""
    if value is None or type(value) in (bool, int, float, str, list, dict, np.ndarray):
        return value
    raise CheckpointError(f"contains a {type(value).__name__.strip('_').lower()}, which no checkpoint needs")


def _check_depth(value: Any, depth: int = 0) -> None:
    if depth > MAX_DEPTH:
        raise CheckpointError(f"refused: it is nested more than {MAX_DEPTH} levels deep")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(item, depth + 1)


def _protocol(machine: _Machine, version: int) -> None:
    if version != 4:
        raise CheckpointError(f"refused: it is a pickle of protocol {version}, checkpoints have protocol 4")


ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _protocol,
    "FRAME": lambda machine, length: None,
    "MARK": lambda machine, _: machine.push(_Mark()),
    "MEMOIZE": lambda machine, _: machine.memo.append(machine.stack[-1] if machine.stack else None),
    "BINGET": _Machine.recall,
    "LONG_BINGET": _Machine.recall,
    "STACK_GLOBAL": lambda machine, _: machine.name(),
    "REDUCE": lambda machine, _: machine.reduce(),
    "BUILD": lambda machine, _: machine.build(),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "SETITEM": lambda machine, _: machine.set_items([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "APPEND": lambda machine, _: machine.append([machine.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.pop_to_mark()),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_to_mark())),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1"), _Machine.integer),
    **dict.fromkeys(
        ("BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"), _Machine.push
    ),
}
