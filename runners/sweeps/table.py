"""The results of a sweep's jobs, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cnn.text import columns, printable
from runners.sweeps.job import Job, own_overrides

WIDTH = 100


@dataclass(frozen=True)
class Row:
    """A job, and a line with what it came to."""

    job: Job
    result: str


def table(rows: Sequence[Row]) -> str:
    """A line per job: its number, the overrides that not all jobs share, and its result."""
    own = own_overrides([row.job for row in rows])
    lines = [("job", "overrides", "result")]
    for row in sorted(rows, key=lambda row: row.job.number):
        result = printable(" ".join(row.result.split()))
        short = result if len(result) <= WIDTH else f"{result[: WIDTH - 3]}..."
        lines.append((str(row.job.number), printable(own[row.job.number]), short))
    return "\n".join(columns(lines, "><<"))
