"""Files that appear whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

TEMPORARY = ".new"
"""How the names of files end that are being written."""


def write(
    file: Path, data: bytes, *, check: Callable[[Path], object] = lambda path: None, spare: Path | None = None
) -> None:
    """Put data into a file, which readers see as it was or as it will be, and which is on the disk when this returns.

    `check` may raise for what was written, before it replaces anything. What was there before goes to `spare`, if one
    is given. Raises OSError, with the file's name, where the disk doesn't take it; then the old file is there as it
    was, or as `spare`.
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
        with suppress(OSError):  # what stopped the writing may stop this too: the next start cleans up
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(file)) from error
        raise
    sync(file.parent)


def clean(folder: Path) -> None:
    """Remove what writers left in a folder that were killed. Nobody may be writing there."""
    for leftover in folder.glob(f".*{TEMPORARY}"):
        leftover.unlink(missing_ok=True)


def sync(folder: Path) -> None:
    """Bring a change of names to the disk, where the system knows how."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
