"""A bar for each running job of a sweep, on a terminal: what its run directory says of it."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import Any

import yaml
from tqdm import tqdm

from runners.files import metrics_csv
from runners.sweeps.job import Job

SECONDS = 0.5
"""Between two looks at the directories of the running jobs."""
WIDTH = 40


class Bars:
    """Prints nothing where stderr isn't a terminal, except notes."""

    def __init__(self, count: int) -> None:
        self.shown = sys.stderr.isatty() and count > 0
        self._whole = tqdm(total=count, unit="job", desc="sweep", position=0, leave=False, disable=not self.shown)
        self._bars: dict[int, tqdm[Any]] = {}
        self._jobs: dict[int, Job] = {}
        self._next = 0.0
        self._noted: set[str] = set()

    def __enter__(self) -> Bars:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for bar in [*self._bars.values(), self._whole]:
            bar.close()

    def begin(self, job: Job) -> None:
        """A job has been started."""
        if self.shown:
            place = next(number for number in range(1, len(self._bars) + 2) if number not in self._places())
            name = f"job {job.number} {' '.join(job.overrides)}"
            self._bars[job.number] = tqdm(unit="epoch", desc=name[:WIDTH], position=place, leave=False)
            self._jobs[job.number] = job

    def _places(self) -> list[int]:
        return [-bar.pos for bar in self._bars.values()]

    def update(self) -> None:
        """Read how far the running jobs are, every half second."""
        if not self._bars or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + SECONDS
        for number, bar in self._bars.items():
            if bar.total is None:
                bar.total = _epochs(self._jobs[number])
            bar.n = _epochs_done(self._jobs[number])
            bar.refresh()

    def finish(self, job: Job) -> None:
        """A job has ended: print what it came to above the bars."""
        if not self.shown:
            return
        if job.number in self._bars:
            self._bars.pop(job.number).close()
            with suppress(OSError):
                tqdm.write(f"job {job.number}  {' '.join(job.overrides)}  {job.outcome().text}", file=sys.stderr)
        self._whole.update()

    def note(self, text: str) -> None:
        """Print a note, once."""
        if text not in self._noted:
            self._noted.add(text)
            with suppress(OSError):
                tqdm.write(f"note: {text}", file=sys.stderr)


def _epochs(job: Job) -> int | None:
    with suppress(OSError, ValueError, yaml.YAMLError):
        config = yaml.safe_load((job.path / "config.yaml").read_text(encoding="utf-8"))
        if isinstance(config, dict) and isinstance(config.get("epochs"), int):
            return int(config["epochs"])
    return None


def _epochs_done(job: Job) -> int:
    with suppress(OSError, ValueError):
        return len(metrics_csv.read(job.path / "metrics.csv"))
    return 0
