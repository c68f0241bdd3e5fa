"""Plain pickles: dicts, lists, numbers, texts and numpy arrays, written whole and read without executing anything.

A file is a pickle of protocol 4 and, after its last opcode, a trailer: magic, format version, length and SHA-256 of the
pickle. Any script reads it with `pickle.load`, which doesn't look beyond the last opcode. This project looks at the
trailer first, so that a torn or damaged file is known at once, and then reads opcodes as data (`opcodes.py`), so that
a file from a stranger, whose trailer may be right, runs nothing of theirs.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from runners.errors import CheckpointError
from runners.opcodes import decode

MAGIC = b"cnn-ckpt"
VERSION = 2
PROTOCOL = 4
TRAILER = struct.Struct("<8sIQ32s")
"""Magic, format version, length of the pickle in bytes, its SHA-256."""


def write(file: Path, content: Mapping[str, Any], *, spare: Path | None = None) -> None:
    """Write plain data. The file appears whole, on the disk and read back, or not at all.

    What was there before goes to `spare`, if one is given. Raises CheckpointError for what isn't plain data, OSError
    where the disk doesn't take it.
    """
    data = seal(pickle.dumps(_copy(content), protocol=PROTOCOL))
    temporary = file.with_name(f".{file.name}.{os.getpid()}{TEMPORARY}")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        read(temporary)
        if spare and file.exists():
            file.replace(spare)
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(file.parent)


TEMPORARY = ".new"
"""How the names of files end that are being written."""


def seal(pickled: bytes) -> bytes:
    """A pickle with its trailer."""
    return pickled + TRAILER.pack(MAGIC, VERSION, len(pickled), hashlib.sha256(pickled).digest())


def read(file: Path) -> dict[str, Any]:
    """The plain data in a file that `write` made. Raises CheckpointError where it is missing, broken, or not ours."""
    try:
        if not file.is_file():  # a named pipe would keep us waiting
            raise CheckpointError(f"{file}: there is no such file")
        data = file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{file}: can't be read: {error.strerror}") from None
    try:
        return parse(data)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from None


def parse(data: bytes) -> dict[str, Any]:
    """The plain data in the bytes of a file. Raises CheckpointError for all other bytes."""
    content = decode(_unseal(data))
    if not isinstance(content, dict):
        raise CheckpointError(f"not a checkpoint: it holds a {type(content).__name__}")
    return content


def _unseal(data: bytes) -> bytes:
    """The pickle of a file whose trailer fits it."""
    if len(data) < TRAILER.size or data[-TRAILER.size :][: len(MAGIC)] != MAGIC:
        raise CheckpointError("not a checkpoint of this project, or one that was cut short: its last bytes are others")
    _, version, length, digest = TRAILER.unpack(data[-TRAILER.size :])
    if version != VERSION:
        raise CheckpointError(f"has format version {version}, this program reads {VERSION}")
    pickled = data[: -TRAILER.size]
    if length != len(pickled):
        raise CheckpointError(f"broken: {len(pickled)} bytes where it says that there are {length}")
    if hashlib.sha256(pickled).digest() != digest:
        raise CheckpointError("broken: its bytes are not the ones that were written (SHA-256)")
    return pickled


def _copy(value: Any) -> Any:
    """The value in containers of its own, tuples as lists: nothing stands in two places."""
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(item) for item in value]
    return np.array(value, order="C") if isinstance(value, np.ndarray) else value


def _sync(folder: Path) -> None:
    """Bring a change of names to the disk, where the system knows how."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
