"""What the jobs of a sweep came to."""

from __future__ import annotations

import json
from pathlib import Path


def statuses(sweep: str | Path) -> dict[str, tuple[str, str | None]]:
    """State and reason of each job that has a directory."""
    jobs = sorted(path for path in Path(sweep).iterdir() if (path / "status.json").is_file())
    read = {job.name: json.loads((job / "status.json").read_text()) for job in jobs}
    return {job: (status["state"], status["reason"]) for job, status in read.items()}
