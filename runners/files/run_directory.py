"""The directory of one run: made new, used by one process at a time, and the only place a run writes to."""

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
from runners.files.status import LOCK, now, read_status

LOOKING = 0.5
"""Seconds: who only looks whether a run is held holds it for less."""


def new_name() -> str:
    """`<date>/<time>-<short unique id>`."""
    return f"{datetime.now():%Y-%m-%d/%H-%M-%S}-{secrets.token_hex(3)}"


def make_new(key: str, path: Path) -> None:
    """Make a folder, and those above it. Raises RunDirectoryError, with the key, where it is there or can't be made."""
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        raise RunDirectoryError(f"{key}: {path} exists already, give a new one or remove it") from None
    except OSError as error:
        raise RunDirectoryError(f"{key}: {path} can't be made: {error.strerror}") from None


class RunDirectory:
    """Paths and small files of one run, held by a lock until the end of a `with` block.

    The lock ends with its process, however that ends: a run that died is one that says `running` and isn't held.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path / LOCK)
        try:
            self._lock.acquire(timeout=LOOKING)
        except Timeout:
            raise RunDirectoryError(f"{path}: another process is at work in it, wait until it ends") from None
        self._status = read_status(path)

    @classmethod
    def make(cls, path: Path, overrides: Sequence[str]) -> RunDirectory:
        """A new directory that tells what was typed for it.

        Raises RunDirectoryError where something is already there, or where none can be made.
        """
        make_new("run_dir", path)
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
        """The directory of a run that goes on, cleared of what a killed process left half-written.

        Raises RunDirectoryError where it isn't one, can't be written to, or another process is at work in it.
        """
        if not (path / "checkpoints").is_dir():
            raise RunDirectoryError(f"{path}: {_why_no_run(path)}")
        try:
            directory = cls(path)
            for folder in (path, path / "checkpoints", path / "figures"):
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

    def told(self, key: str, otherwise: Any) -> Any:
        """What status.json says under a key, if it is of the same type as `otherwise`."""
        value = self._status.get(key)
        return value if isinstance(value, type(otherwise)) else otherwise

    def checkpoint(self, which: str) -> Path:
        return self.path / "checkpoints" / f"{which}.pkl"

    def write_figure(self, name: str, png: bytes) -> None:
        (self.path / "figures").mkdir(exist_ok=True)
        atomic.write(self.path / "figures" / f"{name}.png", png)

    def write_yaml(self, name: str, content: Mapping[str, Any] | list[str]) -> None:
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        atomic.write(self.path / name, text.encode())

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        text = json.dumps(_finite(content), indent=2, allow_nan=False) + "\n"
        atomic.write(self.path / name, text.encode())

    def status(self, state: str, **details: Any) -> None:
        """Write status.json: running, done, failed or interrupted, and details, which stay until they are replaced."""
        self._status |= {"state": state, "reason": None, **details, "pid": os.getpid(), "updated": now()}
        self.write_json("status.json", self._status)

    def open_log(self) -> logging.Handler:
        """A handler that adds to run.log."""
        handler = _Log(self.path / "run.log", encoding="utf-8")
        formatter = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
        formatter.converter = time.gmtime
        handler.setFormatter(formatter)
        return handler


class _Log(logging.FileHandler):
    """Is silent about a full disk: what counts fails where it is written, and says so."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        pass

    def close(self) -> None:
        with suppress(OSError):
            super().close()


def _why_no_run(path: Path) -> str:
    for run in (path.parent, path.parent.parent):
        if path.exists() and (run / "checkpoints").is_dir():
            return f"a part of a run, give the run: {run}"
    return "not a run directory: there is no folder checkpoints in it" if path.is_dir() else "there is no such run"


def _finite(value: Any) -> Any:
    """NaN and infinity, which JSON doesn't know, as null."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
