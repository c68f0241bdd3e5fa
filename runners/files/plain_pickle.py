"""Plain pickles: dicts, lists, numbers, strings and numpy arrays, written atomically and read without executing code.

A file is a pickle of protocol 4, followed by a trailer: magic, format version, length and SHA-256 of the pickle. Any
script can read it with `pickle.load`, which ignores everything after the last opcode. This project checks the trailer
first, so that it detects a truncated or damaged file, and then reads the opcodes as data (`safe_unpickler.py`), so that
an untrusted file, even one with a valid trailer, executes nothing.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from runners.errors import CheckpointError, printable
from runners.files import atomic
from runners.files.safe_unpickler import decode

MAGIC = b"cnn-ckpt"
VERSION = 2
PROTOCOL = 4
TRAILER = struct.Struct("<8sIQ32s")
"""Magic, format version, length of the pickle in bytes, its SHA-256."""
MAX_BYTES = 1 << 33


def write(file: Path, content: Mapping[str, Any], *, spare: Path | None = None) -> None:
    """Write plain data atomically, after reading it back from disk.

    The old file is moved to `spare`, if given. Raises CheckpointError if the content isn't plain data, OSError if the
    write fails.
    """
    atomic.write(file, seal(pickle.dumps(_copy(content), protocol=PROTOCOL)), check=read, spare=spare)


def seal(pickled: bytes) -> bytes:
    """A pickle with its trailer."""
    return pickled + TRAILER.pack(MAGIC, VERSION, len(pickled), hashlib.sha256(pickled).digest())


def read(file: Path) -> dict[str, Any]:
    """Read plain data from a file of `write`. Raises CheckpointError if it is missing, broken, or another format."""
    try:
        if not file.is_file():  # opening a named pipe would block
            raise CheckpointError("there is no such file")
        with file.open("rb") as stream:
            return _content(stream)
    except OSError as error:
        raise CheckpointError(f"{printable(file)}: can't be read: {error.strerror}") from None
    except MemoryError:
        raise CheckpointError(f"{printable(file)}: needs more memory than is available") from None
    except CheckpointError as error:
        raise CheckpointError(f"{printable(file)}: {error}") from None


def parse(data: bytes) -> dict[str, Any]:
    """The plain data in the bytes of a file. Raises CheckpointError as `read` does."""
    return _content(io.BytesIO(data))


def _content(stream: BinaryIO) -> dict[str, Any]:
    """Check a file's size, trailer and checksum before it is loaded into memory, then decode it."""
    size = stream.seek(0, os.SEEK_END)
    if size > MAX_BYTES:
        raise CheckpointError(f"has {size} bytes, more than the limit of {MAX_BYTES}")
    length = max(0, size - TRAILER.size)
    stream.seek(length)
    digest = _digest(stream.read(), length)
    stream.seek(0)
    if digest != _sha256(stream, length):
        raise CheckpointError("broken: its content has changed since it was written (SHA-256 mismatch)")
    stream.seek(0)
    content = decode(stream.read(length))
    if not isinstance(content, dict):
        raise CheckpointError(f"not a checkpoint: it holds a {type(content).__name__}")
    return content


def _sha256(stream: BinaryIO, length: int) -> bytes:
    """The checksum of the next `length` bytes."""
    checksum = hashlib.sha256()
    while piece := stream.read(min(length, 1 << 20)):
        checksum.update(piece)
        length -= len(piece)
    return checksum.digest()


def _digest(trailer: bytes, length: int) -> bytes:
    """The SHA-256 in a trailer, whose pickle has `length` bytes."""
    if len(trailer) < TRAILER.size or not trailer.startswith(MAGIC):
        raise CheckpointError("not a checkpoint of this project, or a truncated one: its trailer is missing")
    _, version, promised, digest = TRAILER.unpack(trailer)
    if version != VERSION:
        raise CheckpointError(f"has format version {version}, this program reads {VERSION}")
    if promised != length:
        raise CheckpointError(f"broken: it has {length} bytes, but its trailer says {promised}")
    return bytes(digest)


def _copy(value: Any) -> Any:
    """A deep copy in which no container appears twice; tuples become lists."""
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(item) for item in value]
    return np.array(value, order="C") if isinstance(value, np.ndarray) else value
