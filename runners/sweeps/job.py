"""One job of a sweep, and what it came to, which is read from its directory."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from runners.exit_codes import DONE, FAILED
from runners.files import checkpoint
from runners.files.status import read_status, state

NOT_STARTED = "not started"
OVER = ("done", "pruned")
"""The states of jobs that are never started again."""


@dataclass(frozen=True)
class Job:
    """A job: its number, its overrides, and the run directory that it has once it is started."""

    number: int
    overrides: tuple[str, ...]
    path: Path

    @property
    def state(self) -> str:
        """That of its run; `not started` if there is none."""
        return state(self.path) if self.path.is_dir() else NOT_STARTED

    @property
    def status(self) -> dict[str, Any]:
        """The content of its status.json."""
        return read_status(self.path)

    @property
    def config(self) -> dict[str, Any]:
        """The config that its run has saved; empty if there is none that can be read."""
        with suppress(OSError, ValueError, RecursionError, yaml.YAMLError):
            content = yaml.safe_load((self.path / "config.yaml").read_text(encoding="utf-8"))
            return content if isinstance(content, dict) else {}
        return {}

    @property
    def is_over(self) -> bool:
        return self.state in OVER

    @property
    def can_resume(self) -> bool:
        """Whether it has saved a state to resume from."""
        names = checkpoint.LAST, checkpoint.PREVIOUS
        return any((self.path / "checkpoints" / name).exists() for name in names)

    @property
    def output(self) -> Path:
        """What its process has printed."""
        return self.path / "output.log"

    @property
    def early_output(self) -> Path:
        """The same while it is running: a run makes its directory itself."""
        return self.path.with_name(f"{self.path.name}.log")

    def value(self, name: str | None = None) -> float:
        """A number of its summary, such as `test/loss` or `parameters`; by default the best monitored value.

        NaN if it has none.
        """
        try:
            summary = json.loads((self.path / "summary.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return math.nan
        name = name or str(_inner(summary, "monitor").get("column"))
        places = (_inner(summary, "best"), _inner(summary, "test"), summary)
        found = next((place[name] for place in places if name in place), None)
        return float(found) if isinstance(found, int | float) else math.nan

    def names(self) -> list[str]:
        """The names of all numbers of its summary."""
        try:
            summary = json.loads((self.path / "summary.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        places = (_inner(summary, "best"), _inner(summary, "test"), summary if isinstance(summary, dict) else {})
        return [name for place in places for name, value in place.items() if type(value) in (int, float)]

    def outcome(self) -> Outcome:
        """What it has come to."""
        status = self.status
        now, reason = self.state, status.get("reason")
        text = f"{now}: {reason}" if reason else now
        if now in OVER and isinstance(status.get("result"), str):
            text = status["result"] if now == "done" else f"{now}: {status['result']}"
        return Outcome(now, text, _exit_code(now, status))


def own_overrides(jobs: Sequence[Job]) -> dict[int, str]:
    """The overrides of each job that not all of them share, as a text, by its number."""
    common = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    return {job.number: " ".join(text for text in job.overrides if text not in common) for job in jobs}


@dataclass(frozen=True)
class Outcome:
    """What a job has come to: the state of its run, its line in a table, and its exit code."""

    state: str
    text: str
    exit_code: int


def _inner(content: Any, key: str) -> dict[str, Any]:
    found = content.get(key) if isinstance(content, dict) else None
    return found if isinstance(found, dict) else {}


def _exit_code(now: str, status: dict[str, Any]) -> int:
    if now in (*OVER, NOT_STARTED, "running"):
        return DONE
    if now == "interrupted":
        return 128 + getattr(signal, str(status.get("reason")), signal.SIGTERM)
    code = status.get("exit_code")
    return code if isinstance(code, int) else FAILED
