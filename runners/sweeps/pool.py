"""Runs jobs as processes, several at a time, until all have ended."""

from __future__ import annotations

import shutil
import signal
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from runners.errors import print_to_stderr
from runners.exit_codes import BAD_INPUT, DONE, FAILED
from runners.files import atomic
from runners.files.status import LOCK, is_held
from runners.signals import WATCHED, watch_signals
from runners.sweeps import failures
from runners.sweeps.bars import Bars
from runners.sweeps.job import Job
from runners.sweeps.process import JobProcess, settle_output

POLL = 0.05
"""Seconds between two looks at the processes."""
ENDED = (DONE, *(128 + number for number in WATCHED))
"""The exit codes of a run that is done, or was interrupted and has saved its state."""
LOOKS_PER_CHECK = 20
"""The number of looks after which is asked whether the sweep that asked for these jobs is still there."""
LEFT_BY_A_START = (LOCK, "changes.patch", "config.yaml", "output.log", "overrides.yaml", "run.log", "status.json")
"""The files of a run that hasn't saved anything yet."""


@dataclass(frozen=True)
class Terms:
    """How jobs are run. `threads`: of each job, unless it sets them itself; None: as many as it likes."""

    folder: Path
    flags: tuple[str, ...] = ()
    """Flags of the command line that each job gets, too."""
    at_once: int = 1
    threads: int | None = None
    retry: int = 0
    """A job that fails is tried again this many times."""
    stop_on_failure: bool = False
    """Whether no job is started any more once one has failed."""


@dataclass
class Pool:
    """Runs jobs. `reports` has what jobs have printed that make no run directory, such as `debug=summary`."""

    terms: Terms
    is_wanted: Callable[[], bool] = lambda: True
    """Whether the sweep is still there; if not, the jobs are ended."""
    reports: dict[int, str] = field(default_factory=dict)
    codes: dict[int, int] = field(default_factory=dict)
    """The exit codes of these jobs."""
    has_failed: bool = False
    feed: Callable[[Collection[int]], Sequence[Job]] = lambda active: ()
    """More jobs to run now, given the numbers of those that haven't ended: a search asks them one after the other."""
    _running: list[JobProcess] = field(default_factory=list)
    _failures: dict[int, int] = field(default_factory=dict)

    def run(self, jobs: Sequence[Job]) -> None:
        """Run all jobs that aren't done, and resume those that were interrupted.

        After a signal, hands it to every process, waits until all have saved their state, and raises Interrupted.
        """
        waiting = deque(jobs)
        looks = 0
        with watch_signals() as watch, Bars(jobs) as bars:
            try:
                while waiting or self._running:
                    if watch.received is None and looks % LOOKS_PER_CHECK == 0 and not self.is_wanted():
                        watch.received = signal.SIGTERM
                    watch.check()
                    if self.has_failed and self.terms.stop_on_failure:
                        waiting.clear()
                    self._start(waiting, bars)
                    for process in [*self._running]:
                        if process.poll() is not None and self._end(process, bars):
                            waiting.appendleft(process.job)
                    more = self.feed({job.number for job in (*waiting, *(each.job for each in self._running))})
                    waiting.extend(more)
                    bars.expect(more)
                    bars.update()
                    looks += 1
                    time.sleep(POLL)
            finally:
                self._end_all(watch.received or signal.SIGTERM, bars)
            watch.check()

    def end(self) -> None:
        """End all jobs as with SIGTERM, and wait until they have; a handler of another signal may do this."""
        self._end_all(signal.SIGTERM, Bars(()))

    def _start(self, waiting: deque[Job], bars: Bars) -> None:
        """Start jobs while there is room for them, except those that a process of an earlier start is still using."""
        for job in [*waiting]:
            if len(self._running) >= self.terms.at_once:
                return
            if job.is_over:
                waiting.remove(job)
                bars.finish(job)
            elif job.path.is_dir() and is_held(job.path):
                bars.note(f"job {job.number} is still in use by process {_user(job)}: waiting until that ends")
            else:
                waiting.remove(job)
                settle_output(job)
                if not job.can_resume and (problem := clear(job)):
                    print_to_stderr(f"{failures.ERROR}job {job.number}: {problem}")
                    self.codes[job.number] = BAD_INPUT
                    self.has_failed = True
                    continue
                self._running.append(JobProcess(job, self._arguments(job), self.terms.folder))
                bars.begin(job)

    def _arguments(self, job: Job) -> list[str]:
        """What a job is started with."""
        if job.can_resume:
            own = [text for text in job.overrides if text.startswith("extensions=")]
            same_bits = job.config.get("kernels") == "compiled"  # those of the reference depend on the threads
            return [f"resume={job.path}", *own, *(self._threads(job) if same_bits else [])]
        return [*self.terms.flags, *job.overrides, f"run_dir={job.path}", *self._threads(job)]

    def _threads(self, job: Job) -> list[str]:
        """The threads of a job, unless it sets them itself."""
        given = any(text.startswith("threads=") for text in job.overrides)
        return [] if self.terms.threads is None or given else [f"threads={self.terms.threads}"]

    def _end(self, process: JobProcess, bars: Bars) -> bool:
        """Record how a job has ended; returns whether it is to be tried again."""
        job, code = process.job, process.poll()
        assert code is not None
        self._running.remove(process)
        printed = process.close()
        if failures.makes_report(job):
            self._keep_report(job, code, printed)
        if code in ENDED or job.is_over:
            bars.finish(job)
            return False
        if code == BAD_INPUT and job.path.is_dir() and is_held(job.path):
            return True  # a process of an earlier start, which had no directory yet when this one was started
        why = failures.reason(job, code, printed)
        failures.report(job, code, printed)
        if not failures.makes_report(job):
            failures.record(job, code, why)
            settle_output(job)
        bars.finish(job)
        failed = self._failures[job.number] = self._failures.get(job.number, 0) + 1
        again = failed <= self.terms.retry and code in (FAILED, -signal.SIGKILL)
        if again and not job.status.get("diverged"):  # which it would do again
            bars.note(f"job {job.number} is tried again, {failed} of {self.terms.retry} times")
            return True
        self.has_failed = True
        return False

    def _keep_report(self, job: Job, code: int, printed: str) -> None:
        errors = failures.error_lines(printed)
        lines = printed.splitlines()
        self.reports[job.number] = "\n".join(line for line in lines if line.removeprefix(failures.ERROR) not in errors)
        self.codes[job.number] = code
        job.early_output.unlink(missing_ok=True)

    def _end_all(self, number: int, bars: Bars) -> None:
        for process in self._running:
            process.end(number)
        for process in [*self._running]:
            while process.poll() is None:
                time.sleep(POLL)
            process.close()
            self._running.remove(process)
            bars.finish(process.job)


def clear(job: Job) -> str | None:
    """Remove what a run has left that ended before it had saved anything; returns why not, if it can't be that."""
    if not job.path.is_dir():
        return None
    files = [file.relative_to(job.path).parts[0] for file in job.path.rglob("*") if not file.is_dir()]
    others = [name for name in files if name not in LEFT_BY_A_START and not name.endswith(atomic.TEMPORARY)]
    if others or job.path.is_symlink():
        return f"{job.path} has nothing to resume from, but {others[0] if others else 'is a link'}: move it elsewhere"
    with suppress(FileNotFoundError):
        job.output.replace(job.early_output)
    shutil.rmtree(job.path)
    return None


def _user(job: Job) -> str:
    """The process that is using a job's directory."""
    return str(job.status.get("pid", "unknown"))
