"""Several jobs from one command: a directory for all of them, in it one for each, and a table of what they came to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from runners.errors import RunDirectoryError
from runners.files.run_directory import RunDirectory

WIDTH = 100


@dataclass(frozen=True)
class Job:
    """One job that has ended: its number, what was typed for it, and what it came to, in a line."""

    number: int
    overrides: list[str]
    result: str


@contextmanager
def directory(path: Path) -> Iterator[Path]:
    """The directory of a sweep, made new, and gone again if no job has left anything.

    Raises RunDirectoryError where something is already there or nothing can be made.
    """
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        raise RunDirectoryError(f"sweep_dir: {path} exists already, give a new one or remove it") from None
    except OSError as error:
        raise RunDirectoryError(f"sweep_dir: {path} can't be made: {error.strerror}") from None
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


def table(jobs: Sequence[Job]) -> str:
    """A line for each job: its number, what only some of the jobs were given, and what it came to."""
    common = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    rows = [("job", "overrides", "result")]
    for job in sorted(jobs, key=lambda job: job.number):
        own = [typed for typed in job.overrides if typed not in common and not typed.startswith("sweep_dir=")]
        result = " ".join(job.result.split())
        rows.append((str(job.number), " ".join(own), result if len(result) <= WIDTH else f"{result[: WIDTH - 3]}..."))
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(f"{number:>{widths[0]}}  {typed:<{widths[1]}}  {result}" for number, typed, result in rows)
