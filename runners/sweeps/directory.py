"""The directory of a sweep: sweep.yaml, and a run directory for each job."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from runners.errors import RunDirectoryError
from runners.files.paths import SWEEP, is_sweep
from runners.files.run_directory import LOCK_TIMEOUT, create_folder
from runners.files.status import LOCK, is_held
from runners.sweeps import record
from runners.sweeps.job import Job
from runners.sweeps.record import Record, Start, identity

NUMBERING = ".jobs.lock"
ENDING = ".ending"
"""A file that asks the jobs of a sweep to end."""
POLL = 0.1
"""Seconds between two looks whether they have."""
UNFINISHED = ("not started", "interrupted", "died")
MAX_SEARCHED = 100
"""Sweeps among which an unfinished one of the same command is looked for: the latest."""


@dataclass
class Sweep:
    """The directory of a sweep, and what was asked of it since it was opened."""

    path: Path
    is_new: bool
    asked: list[int] = field(default_factory=list)
    """The numbers of the jobs that this start of the sweep has asked for."""
    added: list[int] = field(default_factory=list)
    """Those of them that an earlier start hadn't."""

    def record(self) -> Record:
        return record.read(self.path)

    def starts(self) -> list[Start]:
        """Its starts, the first and those that went on."""
        content = self.record()
        return [content, *content.continued]

    def has_other_configs(self) -> bool:
        """Whether config files have changed since the sweep was last started."""
        starts = self.starts()
        return len(starts) > 1 and len({start.configs for start in starts[-2:]}) > 1

    def jobs(self) -> list[Job]:
        """All jobs that any start has asked for, in the order of their numbers."""
        return [self._job(number, overrides) for number, overrides in sorted(self.record().jobs.items())]

    def _job(self, number: int, overrides: Sequence[str]) -> Job:
        return Job(number, tuple(overrides), self.path / str(number))

    def number(self, first: int, asked: Sequence[Sequence[str]]) -> list[Job]:
        """The jobs with these overrides: those that they had in an earlier start, or new ones.

        Of a new sweep they are numbered from `first`. Several processes may do this at once.
        """
        with FileLock(self.path / NUMBERING):
            content = self.record()
            known = content.jobs
            numbers: list[int] = []
            for place, overrides in enumerate(asked, start=first):
                number = self._number(place, list(overrides), known, numbers)
                if number not in known:
                    self.added.append(number)
                known[number] = list(overrides)
                numbers.append(number)
            if self.added:
                record.write(self.path, content)
        self.asked += numbers
        return [self._job(number, known[number]) for number in numbers]

    def _number(self, place: int, overrides: list[str], known: dict[int, list[str]], taken: Sequence[int]) -> int:
        same = [number for number, others in known.items() if identity(others) == identity(overrides)]
        free = [number for number in same if number not in taken]
        if place in free:
            return place
        if free and not self.is_new:
            return free[0]
        return place if place not in known else max(known) + 1

    def has_failed(self) -> bool:
        """Whether a job has failed since this start of the sweep."""
        started = self.record().last.started
        return any(job.state == "failed" and str(job.status.get("updated")) >= started for job in self.jobs())

    def has_parent(self) -> bool:
        """Whether the process that runs the sweep is still there, and hasn't asked jobs to end."""
        return self.is_open() and not (self.path / ENDING).exists()

    def end_jobs(self) -> None:
        """Ask the jobs to end that other processes on this machine have started, and wait until they have."""
        (self.path / ENDING).touch()
        while any(job.path.is_dir() and is_held(job.path) for job in self.jobs()):
            time.sleep(POLL)

    def is_open(self) -> bool:
        """Whether the process that runs the sweep is still there; on another machine that isn't known."""
        try:
            return self.record().last.origin.get("host") != platform.node() or is_held(self.path)
        except (RunDirectoryError, OSError):
            return not self.path.is_dir() or is_held(self.path)


@contextmanager
def opened(path: Path, start: Start) -> Iterator[Sweep]:
    """Create the directory of a sweep, or open that of an earlier start; nobody else can while it is open.

    It is removed again if no job has written anything. Raises RunDirectoryError if it is in use, can't be created, or
    is something else.
    """
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    if made:
        create_folder("sweep_dir", path)
    elif not is_sweep(path):
        raise RunDirectoryError(f"sweep_dir: {path} already exists, choose another or remove it")
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=LOCK_TIMEOUT)
    except Timeout:
        raise RunDirectoryError(f"{path}: in use by another process, wait until it ends") from None
    except OSError as error:
        raise RunDirectoryError(f"sweep_dir: {path} can't be written to: {error.strerror}") from None
    try:
        (path / ENDING).unlink(missing_ok=True)
        _begin(path, start, is_new=bool(made))
        yield Sweep(path, is_new=bool(made))
    finally:
        with suppress(OSError):  # somebody has removed the directory
            (path / ENDING).unlink(missing_ok=True)
            if not any(entry.is_dir() for entry in path.iterdir()):
                _remove(path, made)
        lock.release()


def _begin(path: Path, start: Start, *, is_new: bool) -> None:
    try:
        if is_new:
            record.write(path, Record(**start.model_dump()))
        else:
            content = record.read(path)
            content.continued.append(start)
            record.write(path, content)
    except OSError as error:
        raise RunDirectoryError(f"sweep_dir: {path} can't be written to: {error.strerror}") from None


def _remove(path: Path, made: Sequence[Path]) -> None:
    """Remove a directory in which nothing happened, and the folders that were made for it."""
    if made:
        shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):  # another isn't empty
            for folder in made[1:]:
                folder.rmdir()


def unfinished(arguments: Sequence[str] | None, folder: Path) -> Path | None:
    """The latest sweep below a folder that has jobs left to do, of the same command if one is given, or None."""
    files = sorted(folder.glob(f"*/*/{SWEEP}"), key=os.path.getmtime, reverse=True)
    for file in files[:MAX_SEARCHED]:
        with suppress(RunDirectoryError, OSError):
            sweep = Sweep(file.parent, is_new=False)
            same = arguments is None or record.same_command(sweep.record().last.arguments, arguments)
            if same and not is_held(file.parent) and any(job.state in UNFINISHED for job in sweep.jobs()):
                return file.parent
    return None
