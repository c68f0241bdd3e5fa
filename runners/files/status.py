"""The state of a run: its status.json, and whether a process is using it."""

from __future__ import annotations

import json
import stat
import time
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

LOCK = ".lock"


def read_status(path: Path) -> dict[str, Any]:
    """The content of a run's status.json; empty if it can't be read."""
    try:
        content = json.loads((path / "status.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def is_held(path: Path) -> bool:
    """Whether a process is using a run's directory. Raises OSError if that can't be determined.

    Nothing is made for that: a directory whose lock isn't there, or is something else, isn't used.
    """
    try:
        if not stat.S_ISREG((path / LOCK).lstat().st_mode):
            return False
    except FileNotFoundError:
        return False
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def state(path: Path) -> str:
    """running, done, pruned, failed or interrupted; died, if its process ended without saying so; unknown."""
    reported = str(read_status(path).get("state", "unknown"))
    try:
        held = is_held(path)
    except OSError:
        return "unknown" if reported == "running" else reported
    return "running" if held else "died" if reported == "running" else reported


def now() -> str:
    """The time in UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
