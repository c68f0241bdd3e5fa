"""The directory of a sweep, and in it one for each job."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from runners.errors import RunDirectoryError
from runners.files.run_directory import RunDirectory, make_new


@contextmanager
def directory(path: Path) -> Iterator[Path]:
    """The directory of a sweep, made new, and gone again if no job has left anything.

    Raises RunDirectoryError where something is already there or nothing can be made.
    """
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    make_new("sweep_dir", path)
    try:
        yield path
    finally:
        with suppress(OSError):  # something is in it
            for folder in made:
                folder.rmdir()


def record(path: Path, overrides: Sequence[str], state: str, reason: str) -> None:
    """A directory that tells what became of a job that didn't get as far as making one itself."""
    # it did, or a full disk: then only the messages tell
    with suppress(RunDirectoryError, OSError), RunDirectory.make(path, overrides) as made:
        made.status(state, reason=reason)
