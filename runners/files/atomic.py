"""Atomic writes: a file appears whole or not at all, whatever happens during the write."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

TEMPORARY = ".new"
"""The suffix of files that are being written."""


def write(
    file: Path, data: bytes, *, check: Callable[[Path], object] = lambda path: None, spare: Path | None = None
) -> None:
    """Write data to a file atomically: readers see the old content or the new, and the new is on disk on return.

    `check` is called with the written file before it replaces anything, and may raise. The old file is moved to
    `spare`, if given. Raises OSError, with the file's name, if the write fails; the old file is then unchanged, or
    moved to `spare`.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}{TEMPORARY}")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        check(temporary)
        if spare and file.exists():
            file.replace(spare)
        temporary.replace(file)
    except BaseException as error:
        with suppress(OSError):  # what made the write fail may make this fail too; `clean` removes the rest
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(file)) from error
        raise
    sync(file.parent)


def clean(folder: Path) -> None:
    """Remove what killed writers left in a folder. Nothing may be writing to it meanwhile."""
    for leftover in folder.glob(f".*{TEMPORARY}"):
        leftover.unlink(missing_ok=True)


def sync(folder: Path) -> None:
    """Flush a folder's entries to disk, on systems that can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
