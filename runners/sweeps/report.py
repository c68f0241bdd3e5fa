"""The results of a sweep's jobs, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cnn.text import columns

WIDTH = 100


@dataclass(frozen=True)
class Job:
    """A job that has ended: its number, its overrides, and a line with its result."""

    number: int
    overrides: list[str]
    result: str


def table(jobs: Sequence[Job]) -> str:
    """A line per job: its number, the overrides that not all jobs share, and its result."""
    common = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    rows = [("job", "overrides", "result")]
    for job in sorted(jobs, key=lambda job: job.number):
        own = [text for text in job.overrides if text not in common and not text.startswith("sweep_dir=")]
        result = " ".join(job.result.split())
        rows.append((str(job.number), " ".join(own), result if len(result) <= WIDTH else f"{result[: WIDTH - 3]}..."))
    return "\n".join(columns(rows, "><<"))
