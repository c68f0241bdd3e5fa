"""The sampler of a search, made again for each trial, so that a search that goes on asks what it would have asked."""

from __future__ import annotations

from typing import Any

import numpy as np

from cnn.faults import ConfigError, Fault
from runners.sweeps.search_settings import ENDING, ONE_SEED, PLACE, SAMPLERS, SearchSettings
from runners.sweeps.space import Space
from runners.training import study


def sampler(settings: SearchSettings, space: Space, number: int) -> Any:
    """The sampler for the trial of this number. Its seed follows from that of the search and the number.

    Raises ConfigError for arguments that it doesn't take, or if it needs a space with an end.
    """
    place = f"{PLACE}.sampler"
    name, arguments = study.named(settings.sampler, SAMPLERS, place)
    endless = [key for key, dimension in space.searched.items() if dimension.values() is None]
    if name in ENDING and endless:
        problem = (
            f"{name} goes through every value, of which {', '.join(endless)} has no end, give range(start,stop,step)"
        )
        raise ConfigError([Fault(place, problem)])
    seed = _seed(settings.seed, number)
    own = {
        "seed": _seed(settings.seed) if name in ONE_SEED else seed,
        "independent_sampler": study.optuna().samplers.RandomSampler(seed),
        "search_space": {key: dimension.values() for key, dimension in space.searched.items()},
    }
    return study.build(getattr(study.optuna().samplers, SAMPLERS[name]), arguments, f"{place}.{name}", own)


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def limit(settings: SearchSettings, space: Space) -> int:
    """The number of trials: at most that of different ones, if the sampler asks each once."""
    name, _ = study.named(settings.sampler, SAMPLERS, PLACE)
    size = space.size() if name in ENDING else None
    return settings.n_trials if size is None else min(settings.n_trials, size)
