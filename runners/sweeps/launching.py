"""Batches of jobs: which of them are left to do, where they run, and what they return to Hydra's sweeper."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hydra.core.utils import JobReturn, JobStatus, setup_globals
from omegaconf import DictConfig

from runners.errors import print_to_stderr
from runners.sweeps import jobs as sweep_jobs
from runners.sweeps.job import Job
from runners.sweeps.jobs import Jobs

MAX_NAMED = 5
Run = Callable[[Jobs, Sequence[Job]], None]
"""Runs jobs until each has ended. Raises Interrupted after a signal, once none of them is running any more."""


def run_here(jobs: Jobs, left: Sequence[Job]) -> None:
    """Run jobs on this machine."""
    jobs.pool.run(left)


def launch(
    jobs: Jobs,
    run: Run,
    job_overrides: Sequence[Sequence[str]],
    first: int,
    compose: Callable[[Sequence[str]], DictConfig],
) -> list[JobReturn]:
    """Run those jobs of a batch that aren't done; the value of each is its best monitored value, or NaN."""
    setup_globals()
    batch = jobs.number(first, [sweep_jobs.as_typed(overrides) for overrides in job_overrides])
    if not jobs.sweep.is_new:
        _report_known(jobs, batch)
        if jobs.sweep.has_other_configs():  # composing takes a while
            _report_changes(batch, [compose(overrides) for overrides in job_overrides])
    run(jobs, [job for job in batch if not job.is_over])
    return [
        JobReturn(list(overrides), status=JobStatus.COMPLETED, _return_value=job.value())
        for overrides, job in zip(job_overrides, batch, strict=True)
    ]


def _report_known(jobs: Jobs, batch: Sequence[Job]) -> None:
    """Say which jobs are done already, and which are new."""
    over = [job.number for job in batch if job.is_over]
    if over:
        print_to_stderr(f"note: {len(over)} of {len(batch)} jobs are done already")
    if jobs.sweep.added:
        print_to_stderr(f"note: new jobs: {', '.join(map(str, jobs.sweep.added))}")


def _report_changes(batch: Sequence[Job], composed: Sequence[DictConfig]) -> None:
    """Say what has changed in the configs of jobs since they began."""
    changed = sweep_jobs.changed_configs(batch, composed)
    if changed:
        shown = "; ".join(changed[:MAX_NAMED]) + ("; ..." if len(changed) > MAX_NAMED else "")
        print_to_stderr(f"warning: jobs keep the config they began with, which differs from that of today: {shown}")
