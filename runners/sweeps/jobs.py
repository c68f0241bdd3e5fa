"""What Hydra calls for the jobs of a sweep. Each runs in a process of its own; its directory says what it came to."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from cnn.faults import ConfigError, Fault
from runners.config import composition, saved, schema
from runners.config.overrides import NOT_IN_A_SWEEP
from runners.signals import Interrupted
from runners.sweeps.directory import Sweep
from runners.sweeps.job import Job
from runners.sweeps.pool import Pool, Terms

PLACES = ("run_dir", "sweep_dir", "threads")
"""Keys in which a job's saved config differs from the one that is composed."""


@dataclass
class Jobs:
    """The task function of a sweep: called by other people's launchers for each job, asked by ours for many at once.

    A job that fails returns NaN, so that neither launcher nor sweeper abandons the jobs after it. Signals are raised.
    It can be pickled, as launchers do to call it in other processes.
    """

    sweep: Sweep
    terms: Terms
    closing: str = ""
    """What a search came to, to print after the table."""

    def __post_init__(self) -> None:
        self.pool = Pool(self.terms)
        """Runs the jobs of launchers that run them on this machine."""

    def __call__(self, composed: DictConfig) -> float:
        """Run one job, in whatever process a launcher does so, on one thread unless it sets that itself."""
        context = HydraConfig.get()
        (job,) = self.number(context.job.num, [as_typed(context.overrides.task)])
        if self.terms.stop_on_failure and self.sweep.has_failed():
            return math.nan
        alone = replace(self.terms, at_once=1, threads=self.terms.threads or 1)
        try:
            Pool(alone, self.sweep.has_parent).run([job])
        except Interrupted as error:
            if not self.sweep.is_open():  # nobody is there who would end this process: launchers keep theirs
                os._exit(error.exit_code)
            raise
        return job.value()

    def number(self, first: int, asked: Sequence[Sequence[str]]) -> list[Job]:
        """The jobs with these overrides. Raises ConfigError if a sweeper gives them a directory."""
        if any(text.startswith("run_dir=") for overrides in asked for text in overrides):
            raise ConfigError([Fault("run_dir", NOT_IN_A_SWEEP)])
        return self.sweep.number(first, asked)


def as_typed(overrides: Any) -> list[str]:
    """The overrides that Hydra has for a job, as one types them."""
    texts = OmegaConf.to_container(overrides, resolve=False) if isinstance(overrides, DictConfig) else overrides
    return [str(text).lstrip("+") for text in texts or ()]


def changed_configs(jobs: Sequence[Job], composed: Sequence[DictConfig]) -> list[str]:
    """For each job with a saved config that differs from what would be composed for it now: the job and these keys."""
    found = []
    for job, config in zip(jobs, composed, strict=True):
        before = job.config
        if before:
            own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
            after = schema.without_default_model(composition.resolve(own, job.overrides)[0], job.overrides)
            if after.get("extensions"):
                continue  # their defaults aren't known without importing them
            keys = [key for key in saved.changes(before, after) if key.split(".")[0] not in PLACES]
            found += [f"job {job.number}: {', '.join(keys)}"] if keys else []
    return found
