"""Jobs that a cluster runs: what is called there for each, and what waits for them here."""

from __future__ import annotations

import os
import platform
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from runners.files.paths import is_sweep
from runners.signals import WATCHED, Interrupted, watch_signals
from runners.sweeps import failures, process
from runners.sweeps.bars import Bars
from runners.sweeps.directory import Sweep
from runners.sweeps.job import NOT_STARTED, Job
from runners.sweeps.jobs import Jobs
from runners.sweeps.pool import Pool, Terms

POLL = 0.1
"""Seconds between two looks at the directories of the jobs."""
LOST = (NOT_STARTED, "running", "died", "unknown")
"""The states of jobs that a cluster has ended, and that don't say so."""
OVER = ("done", "pruned", "failed")
"""The states after which a cluster is soon done with a job."""


@dataclass
class Elsewhere:
    """One job of a sweep, to be called on another machine: it runs there as it would here, in a process of its own.

    It can be pickled. `ends_with_sweep`: whether the job is ended if the sweep's process is gone.
    """

    sweep: Sweep
    terms: Terms
    job: Job
    ends_with_sweep: bool = True

    def __post_init__(self) -> None:
        self._pool: Pool | None = None

    def __call__(self) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)  # Ray blocks SIGINT, and a job inherits that
        folder = self.terms.folder
        if not is_sweep(folder / self.sweep.path):
            where = f"on {platform.node()}: a sweep needs a folder that all machines share"
            raise FileNotFoundError(f"there is no {folder / self.sweep.path} {where}")
        os.chdir(folder)
        if self.terms.stop_on_failure and self.sweep.has_failed():
            return
        self._pool = Pool(self.terms, self.sweep.has_parent if self.ends_with_sweep else lambda: True)
        with suppress(Interrupted):  # its directory says so
            self._pool.run([self.job])

    def checkpoint(self) -> Any:
        """What submitit calls before the time of a job is over, or another one takes its place: save, then go on.

        Returns what it runs once slurm has started the job again.
        """
        from submitit.helpers import DelayedSubmission

        if self._pool is not None:
            self._pool.end()
        return DelayedSubmission(Elsewhere(self.sweep, self.terms, self.job, self.ends_with_sweep))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pool": None}


class Cluster(Protocol):
    """Where jobs run. Jobs are known by their numbers."""

    def known(self, jobs: Sequence[Job]) -> list[Job]:
        """Those of the jobs that an earlier start has left waiting or running there."""
        ...

    def room(self, running: int) -> int:
        """How many jobs can be handed over now, while this many are waiting or running there."""
        ...

    def start(self, jobs: Sequence[Job]) -> None:
        """Hand jobs over."""
        ...

    def live(self, *, soon: bool) -> set[int]:
        """The jobs that are waiting or running there. `soon`: they are expected to end about now."""
        ...

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Take back what is waiting, and let what is running save its state and end."""
        ...

    def why(self, job: Job) -> str:
        """Why a job has ended that doesn't say so itself."""
        ...


@dataclass
class Elsewheres:
    """Waits for the jobs of a sweep that a cluster runs."""

    jobs: Jobs
    cluster: Cluster
    _running: dict[int, Job] = field(default_factory=dict)
    _shown: set[int] = field(default_factory=set)
    _lost: dict[int, int] = field(default_factory=dict)
    _cancelled: bool = False

    def __post_init__(self) -> None:
        self._started = self.jobs.sweep.record().last.started

    def run(self, left: Sequence[Job]) -> None:
        """Run jobs until each has ended. Raises Interrupted after a signal, once the cluster is done with all."""
        here = [job for job in left if failures.makes_report(job)]
        if here:  # a second's work, which leaves no directory
            self.jobs.pool.run(here)
        waiting = [job for job in left if job not in here]
        with watch_signals() as watch, Bars(waiting) as bars:
            known = self.cluster.known(waiting)
            if known:
                numbers = ", ".join(str(job.number) for job in known)
                bars.note(f"the cluster is still busy with jobs of an earlier start, and is waited for: {numbers}")
            self._running = {job.number: job for job in known}
            waiting = [job for job in waiting if job not in known]
            try:
                while waiting or self._running:
                    watch.check()
                    if self.jobs.terms.stop_on_failure and self.jobs.sweep.has_failed():
                        waiting.clear()
                    room = min(len(waiting), self.cluster.room(len(self._running)))
                    if room > 0:
                        batch, waiting = waiting[:room], waiting[room:]
                        self._running |= {job.number: job for job in batch}
                        self.cluster.start(batch)
                    waiting += [job for job in self._ended() if self._end(job, bars)]
                    self._show(bars)
                    time.sleep(POLL)
            finally:
                self._end_all(bars)
            watch.check()

    def _ended(self) -> list[Job]:
        """The jobs that the cluster isn't running any more."""
        live = self.cluster.live(soon=self._cancelled or all(map(self._is_over, self._running.values())))
        return [self._running.pop(number) for number in [*self._running] if number not in live]

    def _is_over(self, job: Job) -> bool:
        """Whether a job has ended since the sweep was started, as far as its directory says."""
        status = job.status
        return status.get("state") in OVER and str(status.get("updated")) >= self._started

    def _end(self, job: Job, bars: Bars) -> bool:
        """Report how a job has ended; returns whether it is to be tried again."""
        if job.is_over:
            bars.finish(job)
            return False
        if job.state in LOST:
            if self.jobs.terms.stop_on_failure and self.jobs.sweep.has_failed():
                return False
            failures.record(job, 1, self.cluster.why(job))
            process.settle_output(job)
        elif job.state == "failed":  # and was tried again there
            failures.report_recorded(job)
            bars.finish(job)
            return False
        tries = self._lost[job.number] = self._lost.get(job.number, 0) + 1
        if tries <= self.jobs.terms.retry:
            bars.note(f"job {job.number} is tried again, {tries} of {self.jobs.terms.retry} times")
            return True
        if job.state == "failed":
            failures.report_recorded(job)
        bars.finish(job)
        return False

    def _show(self, bars: Bars) -> None:
        for number, job in self._running.items():
            if bars.shown and number not in self._shown and job.path.is_dir():
                self._shown.add(number)
                bars.begin(job)
        bars.update()

    def _end_all(self, bars: Bars) -> None:
        """Take all jobs back, and wait until the cluster is done with them."""
        self._cancelled = True
        if self._running:
            self.cluster.cancel([*self._running.values()])
        while self._running:
            for job in self._ended():
                bars.finish(job)
            time.sleep(POLL)
