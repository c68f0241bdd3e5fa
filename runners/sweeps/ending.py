"""How a sweep has ended: the errors that it prints, its table, and its exit code."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cnn import ConfigError
from runners.config import composition, hydra_settings
from runners.config.overrides import Command
from runners.errors import InputError, RunFailed, program, shell_argument
from runners.exit_codes import BAD_INPUT, DONE, FAILED, report_error
from runners.files.status import is_held
from runners.signals import Interrupted
from runners.sweeps.job import Job
from runners.sweeps.jobs import Jobs
from runners.sweeps.table import Row, table

POLL = 0.1
"""Seconds between two looks whether jobs have ended."""


@dataclass
class Ending:
    """What is known at the end of a sweep in the directory `path`. `listed`: its jobs."""

    command: Command
    path: Path
    folders: Sequence[Path]
    others: bool = False
    """Whether the jobs are run by another launcher than this project's."""
    jobs: Jobs | None = None
    listed: Sequence[Job] = ()
    codes: list[int] = field(default_factory=list)

    def report(self, error: BaseException) -> None:
        """Print an error that ended the sweep: a signal, or one from Hydra, which composes the jobs' configs."""
        again = f"{program('train')} -m {shell_argument('resume', self.path)}"
        if isinstance(error, OSError) and self.jobs and self.jobs.sweep.asked:  # and no fault in a config file
            problem = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            error = RunFailed(f"the sweep ended: {problem}; continue with {again}")
        setting_up = not self.listed and not isinstance(error, ConfigError | InputError)
        if setting_up and isinstance(error, Exception) and (found := hydra_settings.failure(error, self.command)):
            error = found
        if isinstance(error, composition.COMPOSITION_ERRORS) and not isinstance(error, ConfigError):
            error = composition.from_hydra(error, self.folders)
        if isinstance(error, Interrupted) and self.jobs and self.path.exists():
            error.resume = again
        self.codes.append(report_error(error))

    def end_jobs(self) -> None:
        """Let the jobs that other people's launchers run save their state, before these learn of a signal."""
        if self.jobs and self.others:
            self.jobs.sweep.end_jobs()

    def wait(self) -> None:
        """Wait for jobs that other people's launchers have left running: they end with this sweep."""
        while self.others and any(job.path.is_dir() and is_held(job.path) for job in self.listed if not job.is_over):
            time.sleep(POLL)

    def as_text(self) -> str:
        """The reports of the jobs, the table, and the directory."""
        texts = [f"job {number}\n{text}" for number, text in sorted(self._reports.items()) if text]
        rows = [row for job in self._asked if (row := self._row(job))]
        texts += [table(rows)] if rows else []
        texts += [self.jobs.closing] if self.jobs and self.jobs.closing else []
        if self.jobs and self.path.exists():
            texts += [*self._no_longer_asked(), f"sweep directory {self.path}"]
        return "".join(f"{text}\n" for text in texts)

    @property
    def exit_code(self) -> int:
        """The most important of all exit codes: a signal's, then a failure's, then that of bad input."""
        own = self._report_codes
        counted = [job for job in self._asked if job.number not in own]
        if self.jobs and self.jobs.closing and any(job.is_over for job in counted):
            counted = [job for job in counted if not job.status.get("diverged")]  # which a search finds out about
        codes = [*self.codes, *(job.outcome().exit_code for job in counted), *own.values()]
        signalled = [code for code in codes if code > BAD_INPUT]
        return signalled[0] if signalled else FAILED if FAILED in codes else max(codes, default=DONE)

    @property
    def _reports(self) -> dict[int, str]:
        return self.jobs.pool.reports if self.jobs else {}

    @property
    def _report_codes(self) -> dict[int, int]:
        return self.jobs.pool.codes if self.jobs else {}

    @property
    def _asked(self) -> list[Job]:
        """The jobs of this start; under other people's launchers, which number them elsewhere, all jobs."""
        asked = self.jobs.sweep.asked if self.jobs else []
        return [job for job in self.listed if not asked or job.number in asked]

    def _row(self, job: Job) -> Row | None:
        if job.number in self._report_codes:
            return Row(job, "done" if self._report_codes[job.number] == DONE else f"failed: {self._last_line(job)}")
        return Row(job, job.outcome().text)

    def _last_line(self, job: Job) -> str:
        return (self._reports.get(job.number, "").splitlines() or ["see above"])[-1]

    def _no_longer_asked(self) -> list[str]:
        asked = {job.number for job in self._asked}
        others = [str(job.number) for job in self.listed if job.number not in asked]
        return [f"jobs of earlier starts, no longer asked for: {', '.join(others)}"] if others else []
