"""Samplers by name: what each asks follows from the seed, the number of the trial and the trials before it."""

from __future__ import annotations

from typing import Any

import pytest

from runners.sweeps import samplers
from runners.sweeps.search_settings import ENDING, SAMPLERS, SearchSettings
from runners.sweeps.space import Space, parse
from runners.training import study
from tests.optional import needs

needs("optuna", "cmaes", extra="search")
pytestmark = pytest.mark.optional
optuna = study.optuna()

COUNT = 8


def asked(settings: SearchSettings, space: Space, at_once: int = 1) -> list[Any]:
    """The trials of a search, asked several at a time; their values are those of a simple function."""
    made, values = optuna.create_study(), []
    distributions = {key: dimension.distribution() for key, dimension in space.searched.items()}
    for first in range(0, COUNT, at_once):
        batch = []
        for number in range(first, first + at_once):
            made.sampler = samplers.sampler(settings, space, number)
            batch.append(made.ask(distributions))
        made.sampler = optuna.samplers.RandomSampler()
        for trial in batch:
            made.tell(trial, (float(trial.params["x"]) - 0.3) ** 2 + float(trial.params["y"]))
            values.append(trial.params)
    return values


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers(name: str) -> None:
    arguments = {"population_size": 2} if name.startswith("nsga") else {}
    arguments |= {"n_startup_trials": 3} if name in ("tpe", "gp", "cmaes") else {}
    settings = SearchSettings(sampler={name: arguments}, seed=3, n_trials=COUNT)
    space = parse(["x=range(0,1,0.25)" if name in ENDING else "x=interval(0,1)", "y=range(1,4)", "z=a,b"])
    once = asked(settings, space)
    assert once == asked(settings, space)
    different = COUNT - 2 if name.startswith("nsga") else COUNT  # a child may be the image of its parents
    assert len({str(values) for values in once}) >= different
    if name != "gp":  # which doesn't see the trials that are running in Optuna 4.0
        assert len({str(values) for values in asked(settings, space, at_once=4)}) >= different
    if name not in ENDING:
        assert once[0] != asked(settings.model_copy(update={"seed": 4}), space)[0]


def test_a_sampler_that_goes_through_all_values_ends() -> None:
    space = parse(["x=1,2", "y=range(3)"])
    for name in SAMPLERS:
        assert samplers.limit(SearchSettings(sampler=name, n_trials=100), space) == (6 if name in ENDING else 100)
