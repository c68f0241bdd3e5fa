"""Plain pickles: dicts, lists, numbers, strings and numpy arrays, written whole and read without executing anything.

Any script reads such a file with `pickle.load`. This project reads it with an unpickler that knows no classes but
numpy's three constructors, and of these only inert stand-ins: opening a file from a stranger runs nothing of theirs.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import pickletools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from runners.errors import CheckpointError

FORMAT = "cnn-checkpoint"
VERSION = 1
PROTOCOL = 4
DTYPES = ("float32", "float64", "int64", "int32", "uint8", "bool")


def write(file: Path, content: Mapping[str, Any]) -> None:
    """Write plain data under the format's name and version. The file appears whole or not at all."""
    data = pickle.dumps({"format": FORMAT, "version": VERSION, **content}, protocol=PROTOCOL)
    temporary = file.with_name(f".{file.name}.new")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read(file: Path) -> dict[str, Any]:
    """The plain data in a file that `write` made. Raises CheckpointError where it is missing, broken, or not ours."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{file}: can't be read: {error.strerror}") from None
    try:
        _check_opcodes(data)
        content = _Plain(budget=len(data)).convert(_Unpickler(io.BytesIO(data)).load())
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from None
    except Exception as error:
        raise CheckpointError(f"{file}: not a checkpoint, or a broken one ({error})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{file}: a pickle, but not a checkpoint of this project")
    if content.get("version") != VERSION:
        raise CheckpointError(f"{file}: has format version {content.get('version')}, this program reads {VERSION}")
    return content


class _Dtype:
    """Stands for numpy.dtype: a name, and the byte order that its state brings."""

    def __init__(self, name: str = "", *flags: object) -> None:
        self.dtype = np.dtype(name) if isinstance(name, str) else None
        if self.dtype is None or self.dtype.name not in DTYPES:
            raise CheckpointError(f"holds an array of {name!r}, allowed are {', '.join(DTYPES)}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", "|"):
            raise CheckpointError(f"holds an array of byte order {state[1]!r}, allowed is '<'")


class _Array:
    """Stands for numpy.ndarray: shape, type and bytes, made into an array when the file has been read."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.kind, fortran, self.content = state
        if not isinstance(self.kind, _Dtype) or not isinstance(self.content, bytes) or fortran:
            raise CheckpointError("holds an array that isn't plain, C-contiguous data")

    def array(self) -> np.ndarray[Any, Any]:
        dtype = self.kind.dtype
        if dtype is None or math.prod(self.shape) * dtype.itemsize != len(self.content):
            raise CheckpointError("holds an array whose bytes don't fit its shape")
        return np.frombuffer(self.content, dtype).reshape(self.shape).copy()


class _Reconstruct:
    """Stands for the function that makes an empty array; nothing about it can be changed."""

    __slots__ = ()

    def __call__(self, *arguments: object) -> _Array:
        return _Array()

    def __setstate__(self, state: object) -> None:
        raise CheckpointError("refused: it would change one of numpy's functions")


_STAND_INS: dict[tuple[str, str], object] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy._core.multiarray", "_reconstruct"): _Reconstruct(),
    ("numpy.core.multiarray", "_reconstruct"): _Reconstruct(),
}
_OPCODES = {
    *("PROTO", "FRAME", "STOP", "MARK", "MEMOIZE", "BINGET", "LONG_BINGET", "STACK_GLOBAL", "REDUCE", "BUILD"),
    *("EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_LIST", "APPEND", "APPENDS"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "NONE", "NEWTRUE", "NEWFALSE"),
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
}


def _check_opcodes(data: bytes) -> None:
    """Refuse opcodes that the writer of checkpoints never uses: others make objects, or ask for memory at will."""
    for opcode, _, _ in pickletools.genops(data):
        if opcode.name not in _OPCODES:
            raise CheckpointError(f"refused: it uses the opcode {opcode.name}, which no checkpoint needs")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise CheckpointError(f"refused: it asks for {module}.{name}, which no checkpoint needs") from None


class _Plain:
    """Makes plain data of what was read, arrays of stand-ins. It makes no more than `budget` bytes."""

    def __init__(self, budget: int) -> None:
        self.budget = budget

    def convert(self, value: Any) -> Any:
        self._spend(1)
        if isinstance(value, _Array):
            self._spend(len(value.content))
            return value.array()
        if isinstance(value, dict):
            return {_key(key): self.convert(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.convert(item) for item in value]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise CheckpointError(f"holds a {type(value).__name__}, which no checkpoint needs")

    def _spend(self, size: int) -> None:
        self.budget -= size
        if self.budget < 0:
            raise CheckpointError("refused: it would grow in memory far beyond its size")


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise CheckpointError(f"holds a mapping with the key {key!r}; keys are texts")
    return key
