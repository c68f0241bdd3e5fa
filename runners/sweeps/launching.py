"""Batches of jobs: which of them are left to do, where they run, and what they return to Hydra's sweeper."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from hydra.core.utils import JobReturn, JobStatus, setup_globals
from omegaconf import DictConfig

from runners.sweeps import jobs as sweep_jobs
from runners.sweeps.job import Job
from runners.sweeps.jobs import Jobs

log = logging.getLogger(__name__)
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
        _report_changes(jobs, batch, [compose(overrides) for overrides in job_overrides])
    run(jobs, [job for job in batch if not job.is_over])
    return [
        JobReturn(list(overrides), status=JobStatus.COMPLETED, _return_value=job.value())
        for overrides, job in zip(job_overrides, batch, strict=True)
    ]


def _report_changes(jobs: Jobs, batch: Sequence[Job], composed: Sequence[DictConfig]) -> None:
    """Say which jobs are done already, and what they or interrupted ones were done with that is otherwise now."""
    over = [job.number for job in batch if job.is_over]
    if over:
        log.warning("note: %d of %d jobs are done already", len(over), len(batch))
    changed = sweep_jobs.changed_configs(batch, composed)
    if changed:
        shown = "; ".join(changed[:MAX_NAMED]) + ("; ..." if len(changed) > MAX_NAMED else "")
        log.warning("warning: jobs keep the config they began with, which differs from that of today: %s", shown)
    if jobs.sweep.added:
        log.warning("note: new jobs: %s", ", ".join(map(str, jobs.sweep.added)))
