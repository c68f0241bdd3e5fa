"""How a run stands: what its status.json says, and whether a process holds it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

LOCK = ".lock"


def read_status(path: Path) -> dict[str, Any]:
    """What a run's status.json says; nothing where it can't be read."""
    try:
        content = json.loads((path / "status.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def is_held(path: Path) -> bool:
    """Whether a process is at work in a run's directory. Raises OSError where that can't be told."""
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def state(path: Path) -> str:
    """How a run stands: running, done, failed, interrupted; died, where its process ended without a word; unknown."""
    told = str(read_status(path).get("state", "unknown"))
    try:
        held = is_held(path)
    except OSError:
        return "unknown" if told == "running" else told
    return "running" if held else "died" if told == "running" else told


def now() -> str:
    """The time in UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
