"""The directory of one run: created by it, used by one process at a time, and the only place that it writes to."""

from __future__ import annotations

import json
import logging
import math
import os
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from runners.errors import RunDirectoryError
from runners.files import atomic
from runners.files.paths import is_sweep
from runners.files.status import LOCK, now, read_status

SNAPSHOTS = "samples"
"""The folder, within figures, of what is drawn after each epoch."""
LOCK_TIMEOUT = 0.5
"""Seconds. A process that only checks whether a run is active holds the lock for less."""


def new_name() -> str:
    """`<date>/<time>-<short unique id>`."""
    return f"{datetime.now():%Y-%m-%d/%H-%M-%S}-{secrets.token_hex(3)}"


def create_folder(key: str, path: Path) -> None:
    """Create a folder and its parents. Raises RunDirectoryError, with the key, if it exists or can't be created."""
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        raise RunDirectoryError(f"{key}: {path} already exists, choose another or remove it") from None
    except OSError as error:
        raise RunDirectoryError(f"{key}: {path} can't be created: {error.strerror}") from None


class RunDirectory:
    """Paths and small files of one run, locked until the end of a `with` block.

    The lock is released when its process ends, however it ends: a run whose status is `running` but that isn't locked
    has died.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path / LOCK)
        try:
            self._lock.acquire(timeout=LOCK_TIMEOUT)
        except Timeout:
            raise RunDirectoryError(f"{path}: in use by another process, wait until it ends") from None
        self._status = read_status(path)

    @classmethod
    def make(cls, path: Path, overrides: Sequence[str]) -> RunDirectory:
        """Create a directory, with the overrides of its run in a file.

        Raises RunDirectoryError if the path exists, or if it can't be created.
        """
        create_folder("run_dir", path)
        try:
            (path / "checkpoints").mkdir()
            directory = cls(path)
            directory.write_yaml("overrides.yaml", list(overrides))
        except OSError as error:
            shutil.rmtree(path, ignore_errors=True)
            raise RunDirectoryError(f"run_dir: {path} can't be written to: {error.strerror}") from None
        return directory

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Open the directory of a run to resume, and remove what a killed process left half-written.

        Raises RunDirectoryError if it isn't a run directory, can't be written to, or is in use by another process.
        """
        if not (path / "checkpoints").is_dir():
            raise RunDirectoryError(f"{path}: {_why_no_run(path)}")
        try:
            directory = cls(path)
            for folder in (path, path / "checkpoints", path / "figures", path / "figures" / SNAPSHOTS):
                atomic.clean(folder)
        except OSError as error:
            raise RunDirectoryError(f"{path}: can't be written to: {error.strerror}") from None
        return directory

    def close(self) -> None:
        self._lock.release()

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    def saved_status(self, key: str, default: Any) -> Any:
        """The value of a key in status.json, or `default` if it is missing or of another type."""
        value = self._status.get(key)
        return value if isinstance(value, type(default)) else default

    def checkpoint(self, which: str) -> Path:
        return self.path / "checkpoints" / f"{which}.pkl"

    def write_figure(self, name: str, content: bytes, suffix: str = ".png") -> None:
        """Write a file in the folder figures, or in a folder of it if the name has one."""
        file = self.path / "figures" / f"{name}{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(file, content)

    def write_snapshot(self, epoch: int, png: bytes) -> None:
        """Write the picture of an epoch, perhaps over that of an epoch which is repeated after a resume."""
        self.write_figure(f"{SNAPSHOTS}/{epoch:04d}", png)

    def snapshots(self) -> list[Path]:
        """The pictures of all epochs, in their order."""
        files = (self.path / "figures" / SNAPSHOTS).glob("*.png")
        return sorted((file for file in files if file.stem.isdecimal()), key=lambda file: int(file.stem))

    def write_patch(self, patch: bytes) -> None:
        """Write what had changed in the code since its commit, if anything had."""
        if patch:
            atomic.write(self.path / "changes.patch", patch)

    def write_yaml(self, name: str, content: Mapping[str, Any] | list[str]) -> None:
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        atomic.write(self.path / name, text.encode())

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        text = json.dumps(_finite(content), indent=2, allow_nan=False) + "\n"
        atomic.write(self.path / name, text.encode())

    def status(self, state: str, **details: Any) -> None:
        """Write status.json: running, done, failed or interrupted, and details, each kept until it is replaced."""
        self._status |= {"state": state, "reason": None, **details, "pid": os.getpid(), "updated": now()}
        self.write_json("status.json", self._status)

    def open_log(self) -> logging.Handler:
        """A handler that appends to run.log."""
        handler = _Log(self.path / "run.log", encoding="utf-8")
        formatter = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
        formatter.converter = time.gmtime
        handler.setFormatter(formatter)
        return handler


class _Log(logging.FileHandler):
    """Ignores a full disk: the files that matter report it when they are written."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        pass

    def close(self) -> None:
        with suppress(OSError):
            super().close()


def _why_no_run(path: Path) -> str:
    for run in (path.parent, path.parent.parent):
        if path.exists() and (run / "checkpoints").is_dir():
            return f"part of a run, give the run itself: {run}"
    if is_sweep(path):
        return "a sweep, resume it with -m resume=SWEEP, or one of its jobs with resume=SWEEP/0"
    return "not a run directory: it has no folder checkpoints" if path.is_dir() else "there is no such run"


def _finite(value: Any) -> Any:
    """NaN and infinity, which JSON doesn't have, become null."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
