"""What the jobs of a sweep came to, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cnn.text import columns

WIDTH = 100


@dataclass(frozen=True)
class Job:
    """One job that has ended: its number, what was typed for it, and what it came to, in a line."""

    number: int
    overrides: list[str]
    result: str


def table(jobs: Sequence[Job]) -> str:
    """A line for each job: its number, what only some of the jobs were given, and what it came to."""
    common = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    rows = [("job", "overrides", "result")]
    for job in sorted(jobs, key=lambda job: job.number):
        own = [typed for typed in job.overrides if typed not in common and not typed.startswith("sweep_dir=")]
        result = " ".join(job.result.split())
        rows.append((str(job.number), " ".join(own), result if len(result) <= WIDTH else f"{result[: WIDTH - 3]}..."))
    return "\n".join(columns(rows, "><<"))
