"""What Hydra calls for `hydra/sweeper=optuna`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cnn.faults import ConfigError, Fault
from runners.config import composition, schema
from runners.errors import InputError
from runners.sweeps import search_settings, space
from runners.sweeps.job import Job
from runners.sweeps.jobs import Jobs, as_typed
from runners.sweeps.objectives import objectives
from runners.sweeps.search import Search

LOCAL = "local"
Launch = Callable[[Sequence[Sequence[str]], int], object]
"""Runs jobs with these overrides, numbered from a first one, and returns once all have ended."""


def search(jobs: object, config: DictConfig, arguments: Sequence[str], launch: Launch, loader: Any) -> None:
    """Run a search over the space that the arguments describe.

    On this machine a trial is asked whenever there is room for its job; of another launcher, in batches.
    Raises ConfigError and InputError before the first job starts.
    """
    if not isinstance(jobs, Jobs):
        raise InputError("hydra/sweeper: optuna of cnn-from-scratch only sweeps its own runs")
    given = OmegaConf.to_container(config.hydra.sweeper, resolve=True)
    assert isinstance(given, dict)
    local = config.hydra.runtime.choices["hydra/launcher"] == LOCAL
    settings = search_settings.parse({str(key): value for key, value in given.items() if key != "_target_"})
    if local and settings.n_jobs:
        raise ConfigError(
            [Fault("hydra.sweeper.n_jobs", "is for other launchers, give jobs=N with hydra/launcher=local")]
        )
    asked = space.parse(arguments, settings.params, loader)
    base = _base(config, asked.fixed, loader)
    found = Search(jobs.sweep, settings, asked, objectives(settings, base), jobs.terms.stop_on_failure)
    try:
        if local:
            at_once = jobs.terms.at_once
            jobs.pool.feed = lambda active: found.take(at_once - len(active), active)
            _launch(launch, found, found.take(1))
        else:
            while batch := found.take(settings.n_jobs or 1):
                _launch(launch, found, batch)
    finally:
        jobs.closing = found.finish()


def _launch(launch: Launch, found: Search, batch: Sequence[Job]) -> None:
    for group in _consecutive(batch):
        launch([found.overrides(job) for job in group], group[0].number)


def _consecutive(batch: Sequence[Job]) -> Iterator[list[Job]]:
    """Groups of jobs whose numbers follow each other, as launchers number the jobs of a batch."""
    for _, group in groupby(enumerate(batch), key=lambda placed: placed[1].number - placed[0]):
        yield [job for _, job in group]


def _base(config: DictConfig, fixed: Sequence[str], loader: Any) -> Mapping[str, Any]:
    """The config that all jobs share, with the default of each searched value."""
    composed = loader.load_sweep_config(config, list(fixed))
    own = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    typed = as_typed(list(fixed))
    return schema.without_default_model(composition.resolve(own, typed)[0], typed)
