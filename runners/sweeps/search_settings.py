"""What a search is asked for: `hydra.sweeper.KEY`, checked as far as that needs neither Optuna nor a config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel

from cnn.arguments import Positive, Text, check
from cnn.faults import ConfigError, Fault
from runners.config.settings import VALUES, Seed
from runners.training import study

PLACE = "hydra.sweeper"
SAMPLERS = {
    "brute_force": "BruteForceSampler",
    "cmaes": "CmaEsSampler",
    "gp": "GPSampler",
    "grid": "GridSampler",
    "nsgaii": "NSGAIISampler",
    "nsgaiii": "NSGAIIISampler",
    "qmc": "QMCSampler",
    "random": "RandomSampler",
    "tpe": "TPESampler",
}
ONE_SEED = ("grid", "qmc")
"""Samplers that go through one order of points, so all trials need the same seed."""
ENDING = ("grid", "brute_force")
"""Samplers that ask each point once."""
Direction = Literal["minimize", "maximize"]
Chosen = Text | Mapping[str, Mapping[str, Any] | None]


class SearchSettings(BaseModel):
    """The settings of a search.

    `n_trials`: the number of jobs. `n_jobs`: with other launchers than `local`, this many at once. `objectives`: what
    is searched for, names in summary.json. `params`: the space, for config files; overrides of the same key win.
    """

    model_config = VALUES

    n_trials: Positive = 20
    n_jobs: Positive | None = None
    sampler: Chosen = "tpe"
    pruner: Chosen | None = None
    seed: Seed = 0
    objectives: Text | Sequence[Text] | None = None
    directions: Direction | Sequence[Direction] | None = None
    params: Mapping[str, Any] | None = None

    @property
    def names(self) -> list[str]:
        """The objectives that are given, if any."""
        given = self.objectives or ()
        return [given] if isinstance(given, str) else list(given)

    @property
    def ways(self) -> list[str]:
        """The directions that are given, if any."""
        given = self.directions or ()
        return [given] if isinstance(given, str) else list(given)

    @property
    def prunes(self) -> bool:
        return self.pruner not in (None, "none")


def parse(given: Mapping[str, Any]) -> SearchSettings:
    """The settings with these values. Raises ConfigError, and InputError if Optuna isn't installed."""
    settings = check(SearchSettings, given, PLACE)
    faults = []
    for place, chosen, known in (("sampler", settings.sampler, SAMPLERS), ("pruner", settings.pruner, study.PRUNERS)):
        try:
            study.named(chosen or "none", known, f"{PLACE}.{place}")
        except ConfigError as error:
            faults += error.faults
    names, ways = settings.names, settings.ways
    if len(set(names)) < len(names):
        faults.append(Fault(f"{PLACE}.objectives", "one is given twice"))
    if ways and len(ways) != (len(names) or 1):
        problem = f"{len(ways)} for {len(names) or 1} objectives, give one for each"
        faults.append(Fault(f"{PLACE}.directions", problem))
    if settings.prunes and len(names) > 1:
        faults.append(Fault(f"{PLACE}.pruner", "a search with several objectives can't prune, give pruner=none"))
    if faults:
        raise ConfigError(faults)
    study.optuna()
    if _name(settings.sampler) == "cmaes":
        study.require_cmaes(f"{PLACE}.sampler")
    return settings


def _name(chosen: Chosen) -> str:
    return study.named(chosen, SAMPLERS, PLACE)[0]
