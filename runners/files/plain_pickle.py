"""Plain pickles: dicts, lists, numbers, texts and numpy arrays, written whole and read without executing anything.

A file is a pickle of protocol 4 and, after its last opcode, a trailer: magic, format version, length and SHA-256 of the
pickle. Any script reads it with `pickle.load`, which doesn't look beyond the last opcode. This project looks at the
trailer first, so that a torn or damaged file is known at once, and then reads opcodes as data (`opcodes.py`), so that
a file from a stranger, whose trailer may be right, runs nothing of theirs.
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
MOST_BYTES = 1 << 33


def write(file: Path, content: Mapping[str, Any], *, spare: Path | None = None) -> None:
    """Write plain data. The file appears whole, on the disk and read back, or not at all.

    What was there before goes to `spare`, if one is given. Raises CheckpointError for what isn't plain data, OSError
    where the disk doesn't take it.
    """
    atomic.write(file, seal(pickle.dumps(_copy(content), protocol=PROTOCOL)), check=read, spare=spare)


def seal(pickled: bytes) -> bytes:
    """A pickle with its trailer."""
    return pickled + TRAILER.pack(MAGIC, VERSION, len(pickled), hashlib.sha256(pickled).digest())


def read(file: Path) -> dict[str, Any]:
    """The plain data in a file that `write` made. Raises CheckpointError where it is missing, broken, or not ours."""
    try:
        if not file.is_file():  # a named pipe would keep us waiting
            raise CheckpointError("there is no such file")
        with file.open("rb") as stream:
            return _content(stream)
    except OSError as error:
        raise CheckpointError(f"{printable(file)}: can't be read: {error.strerror}") from None
    except MemoryError:
        raise CheckpointError(f"{printable(file)}: takes more memory than there is") from None
    except CheckpointError as error:
        raise CheckpointError(f"{printable(file)}: {error}") from None


def parse(data: bytes) -> dict[str, Any]:
    """The plain data in the bytes of a file. Raises CheckpointError for all other bytes."""
    return _content(io.BytesIO(data))


def _content(stream: BinaryIO) -> dict[str, Any]:
    """Look at a file's size, at its end and at its checksum before it goes into memory, then at what it holds."""
    size = stream.seek(0, os.SEEK_END)
    if size > MOST_BYTES:
        raise CheckpointError(f"has {size} bytes, at most {MOST_BYTES} are read")
    length = max(0, size - TRAILER.size)
    stream.seek(length)
    digest = _digest(stream.read(), length)
    stream.seek(0)
    if digest != _sha256(stream, length):
        raise CheckpointError("broken: its bytes are not the ones that were written (SHA-256)")
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
    """The SHA-256 that a trailer tells of the pickle before it, which has so many bytes."""
    if len(trailer) < TRAILER.size or not trailer.startswith(MAGIC):
        raise CheckpointError("not a checkpoint of this project, or one that was cut short: its last bytes are others")
    _, version, promised, digest = TRAILER.unpack(trailer)
    if version != VERSION:
        raise CheckpointError(f"has format version {version}, this program reads {VERSION}")
    if promised != length:
        raise CheckpointError(f"broken: {length} bytes where it says that there are {promised}")
    return bytes(digest)


def _copy(value: Any) -> Any:
    """The value in containers of its own, tuples as lists: nothing stands in two places."""
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(item) for item in value]
    return np.array(value, order="C") if isinstance(value, np.ndarray) else value
