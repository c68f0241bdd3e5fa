"""The directory of one run: made new, never shared, and the only place a run writes to."""

from __future__ import annotations

import json
import logging
import math
import secrets
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from runners.errors import RunDirectoryError


def new_name() -> str:
    """`<date>/<time>-<short unique id>`."""
    return f"{datetime.now():%Y-%m-%d/%H-%M-%S}-{secrets.token_hex(3)}"


class RunDirectory:
    """Paths and small files of one run. Making one fails where something is already there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True)
            (path / "checkpoints").mkdir()
        except FileExistsError:
            raise RunDirectoryError(f"run_dir: {path} exists already, give a new one or remove it") from None
        except OSError as error:
            raise RunDirectoryError(f"run_dir: {path} can't be made: {error.strerror}") from None
        self._status: dict[str, Any] = {}

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    def checkpoint(self, which: str) -> Path:
        return self.path / "checkpoints" / f"{which}.pkl"

    def figure(self, name: str) -> Path:
        (self.path / "figures").mkdir(exist_ok=True)
        return self.path / "figures" / f"{name}.png"

    def write_yaml(self, name: str, content: Mapping[str, Any] | list[str]) -> None:
        write_whole(self.path / name, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        write_whole(self.path / name, json.dumps(_finite(content), indent=2, allow_nan=False) + "\n")

    def status(self, state: str, **details: Any) -> None:
        """Write status.json: running, done, failed or interrupted, and details, which stay until they are replaced."""
        self._status |= {"state": state, "reason": None, **details, "updated": now()}
        self.write_json("status.json", self._status)

    def open_log(self) -> logging.Handler:
        """A handler that writes run.log."""
        handler = logging.FileHandler(self.path / "run.log", encoding="utf-8")
        formatter = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
        formatter.converter = time.gmtime
        handler.setFormatter(formatter)
        return handler


def _finite(value: Any) -> Any:
    """NaN and infinity, which JSON doesn't know, as null."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def now() -> str:
    """The time in UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def write_whole(file: Path, text: str) -> None:
    """Write a text file so that readers see the old content or the new, never half of it."""
    temporary = file.with_name(f".{file.name}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)
