"""What a report knows of one run: what its files say, and whether its result counts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runners.files.dotted import flat
from runners.files.metrics_csv import Row
from runners.files.status import state
from runners.reports.reading import Unreadable, read_json, read_list, read_rows, read_yaml

ENDED = "done", "pruned"
"""The states of runs whose results count: a search ends one as pruned."""


@dataclass(frozen=True)
class Monitor:
    """The metric that determines a run's best epoch, and whether `higher` or `lower` is better."""

    column: str
    better: str

    @property
    def test(self) -> str:
        """The same metric on the test examples."""
        return f"test/{self.column.partition('/')[2]}"

    def order(self, value: float) -> float:
        """A sort key: better values come first."""
        return -value if self.better == "higher" else value


@dataclass(frozen=True)
class Run:
    """A run directory.

    `config` has dotted keys, and no null. `best` is the row with the best monitored value so far.
    """

    path: Path
    state: str
    reason: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    overrides: Sequence[str] = ()
    status: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[Row] = ()
    monitor: Monitor | None = None
    best: Mapping[str, Any] = field(default_factory=dict)
    figures: Sequence[Path] = ()

    @property
    def value(self) -> float | None:
        """The best monitored value so far."""
        return None if self.monitor is None else number(self.best.get(self.monitor.column))

    @property
    def test(self) -> float | None:
        """The monitored metric of the test examples, if it was measured."""
        return None if self.monitor is None else number(part(self.summary, "test").get(self.monitor.test))

    @property
    def counts(self) -> bool:
        """Whether the run has ended with a result."""
        return self.state in ENDED and self.value is not None

    @property
    def seed(self) -> Any:
        return self.config.get("seed", self.status.get("seed"))

    @property
    def origin(self) -> Mapping[str, Any]:
        return part(self.status, "origin")

    @property
    def state_text(self) -> str:
        """The state and why, on one line."""
        return " ".join(f"{self.state}: {self.reason}".split()) if self.reason else self.state


def number(value: Any) -> float | None:
    """The value if it is a finite number."""
    try:
        return value if type(value) in (int, float) and math.isfinite(value) else None
    except OverflowError:  # an integer beyond all floats
        return None


def part(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A mapping within another; empty if it is something else."""
    found = content.get(key)
    return found if isinstance(found, Mapping) else {}


def is_run(folder: Path) -> bool:
    """Whether a folder is a run directory, be it broken."""
    files = ("status.json", "overrides.yaml", "config.yaml")
    return (folder / "checkpoints").is_dir() and any((folder / name).exists() for name in files)


def read_run(path: Path) -> Run:
    """A run as its files describe it. One that can't be read has the state `unreadable`, and a reason."""
    overrides: list[str] = []
    try:
        if (path / "overrides.yaml").exists():
            overrides = read_list(path / "overrides.yaml")
        status = read_json(path / "status.json")
        now = state(path)
        if now not in ENDED and not (path / "config.yaml").exists():  # it ended before it had one
            return Run(path, now, _reason(status), overrides=overrides, status=status)
        saved = flat(read_yaml(path / "config.yaml"))
        config = {key: value for key, value in saved.items() if value is not None}  # as if it weren't there
        rows = read_rows(path / "metrics.csv")
        summary = read_json(path / "summary.json") if now == "done" or (path / "summary.json").exists() else {}
        if now == "done" and not rows:
            raise Unreadable("metrics.csv: it has no rows")
    except Unreadable as error:
        return Run(path, "unreadable", str(error), overrides=overrides)
    monitor = _monitor(status, summary, rows)
    best = part(summary, "best") if now == "done" else _best(rows, monitor)
    run = Run(path, now, _reason(status), config, overrides, status, summary, rows, monitor, best, _figures(path))
    if now in ENDED and not run.counts:
        return Run(path, "unreadable", "its summary names no best value", overrides=overrides)
    return run


def _reason(status: Mapping[str, Any]) -> str | None:
    return str(status["reason"]) if status.get("reason") else None


def _monitor(status: Mapping[str, Any], summary: Mapping[str, Any], rows: Sequence[Row]) -> Monitor | None:
    """What the run's files name, or, of an older run, what its columns suggest."""
    for content in (summary, status):
        saved = part(content, "monitor")
        if isinstance(saved.get("column"), str) and saved.get("better") in ("higher", "lower"):
            return Monitor(saved["column"], saved["better"])
    columns = [*part(summary, "best"), *(rows[-1] if rows else ())]
    for column in ("val/accuracy", "val/loss"):
        if column in columns:
            return Monitor(column, "higher" if column == "val/accuracy" else "lower")
    return None


def _best(rows: Sequence[Row], monitor: Monitor | None) -> Row:
    """The first of the rows with the best value."""
    if monitor is None:
        return {}
    found = [row for row in rows if number(row.get(monitor.column)) is not None]
    return min(found, key=lambda row: monitor.order(row[monitor.column]), default={})


def _figures(path: Path) -> tuple[Path, ...]:
    """The pictures of a run, without those of single epochs."""
    try:
        return tuple(sorted(file for file in (path / "figures").iterdir() if file.suffix in (".png", ".gif")))
    except OSError:
        return ()
