"""What a plain pickle says, found out without unpickling: its opcodes are read one by one, and nothing is ever called.

A machine that knows some opcodes and three names of numpy's puts dicts, lists, numbers, texts and arrays together.
An opcode, a name or an order of them that `plain_pickle.write` doesn't produce is refused where it stands, so that
what the machine holds is always plain, and never much larger than the file.
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
MOST_OPCODES = 500_000
"""A checkpoint has some hundred, and thirty more for each array and each epoch; large files may have one in 4 bytes."""
MOST_TEXT = 2**16
"""Bytes of one text: a path, or the name of a weight deep in a network."""
MOST_RECALLED = 2**26
"""Characters of all texts that stand in several places, counted once more in each."""
DEEPEST = 100
"""Lists and dicts in one another: as many as the deepest model that `cnn` makes has in its config."""
LARGEST_INTEGER = 2**64
LARGEST_ARRAY = 2**48
MOST_AXES = 16


def decode(data: bytes) -> Any:
    """The plain data that these bytes are the pickle of. Raises CheckpointError where they are anything else."""
    machine, stream = _Machine(), io.BytesIO(data)
    for _ in range(max(MOST_OPCODES, len(data) // 4)):
        opcode = OPCODES.get(stream.read(1))
        if opcode is None:
            raise CheckpointError("refused: it is no pickle, or has no end")
        if opcode.name == "STOP":
            if stream.read(1):
                raise CheckpointError("refused: something follows its end")
            return machine.result()
        if opcode.name not in ACTIONS:
            raise CheckpointError(f"refused: it uses the opcode {opcode.name}, which no checkpoint needs")
        if opcode.name == "BINUNICODE":
            _require_short(data[stream.tell() : stream.tell() + 4])
        try:
            argument = opcode.arg.reader(stream) if opcode.arg else None
        except ValueError as error:  # cut short, or a text that isn't UTF-8
            raise CheckpointError(f"broken: {error}") from None
        ACTIONS[opcode.name](machine, argument)
    raise CheckpointError("refused: it has more opcodes than any checkpoint")


def _require_short(length: bytes) -> None:
    """Refuse a text by the length that stands before it."""
    if int.from_bytes(length, "little") > MOST_TEXT:
        raise CheckpointError(f"refused: it holds a text of more than {MOST_TEXT:,} bytes")


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
    """The type of an array's values; the byte order comes later, with BUILD."""

    dtype: np.dtype[Any]


class _Unfilled:
    """An array whose shape, type and content come later, with BUILD."""


class _Mark:
    """Where the items of a tuple, list or dict begin."""


class _Machine:
    """The stack and the memo of the pickle format."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: list[Any] = []
        self.recalled = 0

    def result(self) -> Any:
        if len(self.stack) != 1:
            raise CheckpointError("refused: it holds more than one thing")
        content = _plain(self.stack.pop())
        _require_shallow(content)
        return content

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack:
            raise CheckpointError("refused: it takes what it hasn't got")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        items = []
        while not isinstance(item := self.pop(), _Mark):
            items.append(item)
        return items[::-1]

    def top(self, kind: type) -> Any:
        if not self.stack or type(self.stack[-1]) is not kind:
            raise CheckpointError(f"refused: it fills a {kind.__name__} that isn't there")
        return self.stack[-1]

    def integer(self, value: int) -> None:
        if abs(value) > LARGEST_INTEGER:
            raise CheckpointError("refused: it holds an integer of more than 64 bits")
        self.push(value)

    def recall(self, number: int) -> None:
        """Push again what was memorised: only what can't change, so that all else has one place, and no cycle.

        Nor the content of an array, which each array would copy: of bytes, Python itself has one object for all that
        are a single one.
        """
        if number >= len(self.memo):
            raise CheckpointError("refused: it recalls what it hasn't memorised")
        value = self.memo[number]
        numbers = isinstance(value, tuple) and len(value) <= MOST_AXES and all(type(item) is int for item in value)
        single = isinstance(value, bytes) and len(value) <= 1
        if not (numbers or single or isinstance(value, str | _Name | _Dtype)):
            raise CheckpointError(f"refused: it holds one {type(value).__name__} in two places")
        self.recalled += len(value) if isinstance(value, str) else 0
        if self.recalled > MOST_RECALLED:
            raise CheckpointError(f"refused: its repeated texts have more than {MOST_RECALLED:,} characters")
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
            raise CheckpointError("refused: it holds a key without a value")
        target = self.top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is not str:
                raise CheckpointError(f"holds a mapping with a key that is a {type(key).__name__}; keys are texts")
            if key in target:
                raise CheckpointError(f"holds a mapping with two values for {key!r:.80}")
            target[key] = _plain(value)

    def reduce(self) -> None:
        """What would call a function becomes the beginning of an array or of its type."""
        arguments, function = self.pop(), self.pop()
        if function is _RECONSTRUCT and arguments == (_NDARRAY, (0,), b"b"):
            self.push(_Unfilled())
        elif function is _DTYPE and isinstance(arguments, tuple) and arguments[1:] == (False, True):
            self.push(_Dtype(_dtype(arguments[0])))
        else:
            raise CheckpointError("refused: it makes something that isn't a plain array")

    def build(self) -> None:
        """What would set an object's state gives an array its content, or checks the byte order of a type."""
        state, target = self.pop(), self.pop()
        if isinstance(target, _Unfilled):
            self.push(_array(state))
        elif isinstance(target, _Dtype) and isinstance(state, tuple) and len(state) == 8 and state[:1] == (3,):
            if state[1] not in ("<", "|") or state[2:] != (None, None, None, -1, -1, 0):
                raise CheckpointError(f"holds an array of byte order {_shown(state[1])}, allowed is '<'")
            self.push(target)
        else:
            raise CheckpointError("refused: it changes something that isn't a plain array")


def _shown(value: object) -> str:
    return printable(value[:80]) if isinstance(value, str) else type(value).__name__


def _dtype(code: object) -> np.dtype[Any]:
    allowed = {np.dtype(name).str[1:]: np.dtype(name) for name in DTYPES}
    if not isinstance(code, str) or code not in allowed:
        raise CheckpointError(f"holds an array of {_shown(code)}, allowed are {', '.join(DTYPES)}")
    return allowed[code]


def _array(state: object) -> np.ndarray[Any, Any]:
    """An array of its own from version, shape, type, order and bytes, all checked before there is one."""
    if not isinstance(state, tuple) or len(state) != 5:
        raise CheckpointError("holds an array that isn't one")
    version, shape, kind, fortran, content = state
    if version != 1 or fortran is not False or not isinstance(kind, _Dtype) or not isinstance(content, bytes):
        raise CheckpointError("holds an array that isn't plain, C-contiguous data")
    if not isinstance(shape, tuple) or not all(type(size) is int and 0 <= size < LARGEST_ARRAY for size in shape):
        raise CheckpointError("holds an array whose shape isn't one")
    if len(shape) > MOST_AXES or math.prod(shape) * kind.dtype.itemsize != len(content):
        raise CheckpointError("holds an array whose bytes don't fit its shape")
    if not content and math.prod(size or 1 for size in shape) >= LARGEST_ARRAY:
        raise CheckpointError("holds an empty array whose other sizes are beyond all bounds")
    return np.frombuffer(content, kind.dtype).reshape(shape).copy()


def _plain(value: Any) -> Any:
    """The value, if it may stand in a list or dict."""
    if value is None or type(value) in (bool, int, float, str, list, dict, np.ndarray):
        return value
    raise CheckpointError(f"holds a {type(value).__name__.strip('_').lower()}, which no checkpoint needs")


def _require_shallow(value: Any, depth: int = 0) -> None:
    if depth > DEEPEST:
        raise CheckpointError(f"refused: it is nested more than {DEEPEST} deep")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _require_shallow(item, depth + 1)


def _protocol(machine: _Machine, version: int) -> None:
    if version != 4:
        raise CheckpointError(f"refused: it is a pickle of protocol {version}, a checkpoint is one of protocol 4")


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
