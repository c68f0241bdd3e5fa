"""The directory of a sweep, which contains one directory per job."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from runners.errors import RunDirectoryError
from runners.files.run_directory import RunDirectory, create_folder


@contextmanager
def directory(path: Path) -> Iterator[Path]:
    """Create the directory of a sweep, and remove it again if no job has written anything.

    Raises RunDirectoryError if it exists or can't be created.
    """
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    create_folder("sweep_dir", path)
    try:
        yield path
    finally:
        with suppress(OSError):  # it isn't empty
            for folder in made:
                folder.rmdir()


def record(path: Path, overrides: Sequence[str], state: str, reason: str) -> None:
    """Create the directory of a job that ended before it could do so itself, and record why."""
    # it exists after all, or the disk is full: the message has been printed anyway
    with suppress(RunDirectoryError, OSError), RunDirectory.make(path, overrides) as made:
        made.status(state, reason=reason)
