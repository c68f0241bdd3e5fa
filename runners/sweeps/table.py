"""The results of a sweep's jobs, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cnn.text import columns
from runners.sweeps.job import Job

WIDTH = 100


@dataclass(frozen=True)
class Row:
    """A job, and a line with what it came to."""

    job: Job
    result: str


def table(rows: Sequence[Row]) -> str:
    """A line per job: its number, the overrides that not all jobs share, and its result."""
    common = set.intersection(*(set(row.job.overrides) for row in rows)) if len(rows) > 1 else set()
    lines = [("job", "overrides", "result")]
    for row in sorted(rows, key=lambda row: row.job.number):
        own = " ".join(text for text in row.job.overrides if text not in common)
        result = " ".join(row.result.split())
        lines.append((str(row.job.number), own, result if len(result) <= WIDTH else f"{result[: WIDTH - 3]}..."))
    return "\n".join(columns(lines, "><<"))
