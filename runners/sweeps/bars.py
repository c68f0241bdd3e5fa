"""A bar for each running job of a sweep, on a terminal: what its run directory says of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from tqdm import tqdm

from runners.files import metrics_csv
from runners.sweeps.job import Job, own_overrides

SECONDS = 0.5
"""Between two looks at the directories of the running jobs."""
WIDTH = 56
STARTING = "{desc}: starting"
TRAINING = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} epochs [{elapsed}<{remaining}]"


class Bars:
    """Prints nothing where stderr isn't a terminal, except notes."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.shown = sys.stderr.isatty() and len(jobs) > 0
        self._jobs = list(jobs)
        self._names = own_overrides(jobs)
        self._whole = tqdm(total=len(jobs), unit="job", desc="sweep", position=0, leave=False, disable=not self.shown)
        self._bars: dict[Job, tqdm[Any]] = {}
        self._next = 0.0
        self._noted: set[str] = set()

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *error: object) -> None:
        for bar in [*self._bars.values(), self._whole]:
            bar.close()

    def expect(self, more: Sequence[Job]) -> None:
        """More jobs will run than were known."""
        if more:
            self._jobs += more
            self._names = own_overrides(self._jobs)
            self._whole.total = len(self._jobs)

    def begin(self, job: Job) -> None:
        """A job has been started."""
        if self.shown:
            taken = [-bar.pos for bar in self._bars.values()]
            place = next(number for number in range(1, len(taken) + 2) if number not in taken)
            name = f"job {job.number} {self._names[job.number]}"[:WIDTH]
            self._bars[job] = tqdm(desc=name, position=place, leave=False, bar_format=STARTING)

    def update(self) -> None:
        """Read how far the running jobs are, every half second."""
        if not self._bars or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + SECONDS
        for job, bar in self._bars.items():
            if bar.total is None and (epochs := _epochs(job)):
                bar.total, bar.bar_format = epochs, TRAINING
            bar.n = _epochs_done(job)
            bar.refresh()

    def finish(self, job: Job) -> None:
        """A job has ended: print what it came to above the bars. If it has failed, that was printed."""
        if not self.shown:
            return
        if job in self._bars:
            self._bars.pop(job).close()
            outcome = job.outcome()
            if outcome.state != "failed":
                with suppress(OSError):
                    tqdm.write(f"job {job.number}  {self._names[job.number]}  {outcome.text}", file=sys.stderr)
        self._whole.update()

    def note(self, text: str) -> None:
        """Print a note, once."""
        if text not in self._noted:
            self._noted.add(text)
            with suppress(OSError):
                tqdm.write(f"note: {text}", file=sys.stderr)


def _epochs(job: Job) -> int | None:
    epochs = job.config.get("epochs")
    return epochs if isinstance(epochs, int) else None


def _epochs_done(job: Job) -> int:
    with suppress(OSError, ValueError):
        return len(metrics_csv.read(job.path / "metrics.csv"))
    return 0
