"""A search: trials are asked from a study of Optuna's, run as jobs, and the study gets what their directories say.

The study is a journal in the directory of the sweep, and the number of a trial is that of its job. A trial is in the
journal before its job starts, with its overrides; one that has no result there is resumed when the search goes on.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from filelock import FileLock

from cnn.faults import ConfigError, Fault
from cnn.text import nearest
from runners.errors import print_to_stderr
from runners.files import atomic
from runners.sweeps import record, samplers, search_record
from runners.sweeps.directory import NUMBERING, Sweep
from runners.sweeps.job import OVER, Job
from runners.sweeps.objectives import Objective
from runners.sweeps.search_settings import PLACE, SearchSettings
from runners.sweeps.space import Space
from runners.training import study
from runners.training.recorder import PRUNED

OVERRIDES = "overrides"
"""The attribute of a trial with the overrides of its job."""
MAX_FAILED = 5
"""A search whose first trials after a start all fail ends after this many."""
BEST = "best.yaml"
MAX_BEST = 10
"""Jobs of a Pareto front that are printed; best.yaml has all."""


@dataclass
class Search:
    """A search in the directory of a sweep."""

    sweep: Sweep
    settings: SearchSettings
    space: Space
    objectives: Sequence[Objective]
    stop_on_failure: bool = False
    _waiting: list[int] = field(default_factory=list)
    """Trials of an earlier start that have no result."""
    _launched: set[int] = field(default_factory=set)
    """Trials whose jobs this start has launched, and that have no result yet."""

    def __post_init__(self) -> None:
        """Create the study, or open that of an earlier start. Raises ConfigError if it can't go on with this search."""
        samplers.sampler(self.settings, self.space, 0)
        self._pruner = study.pruner(self.settings.pruner or "none")
        new = not (self.sweep.path / study.JOURNAL).exists()
        if new and self.sweep.record().jobs:
            raise ConfigError([Fault("sweep_dir", f"{self.sweep.path} has the jobs of a grid, choose another")])
        search_record.update(self.sweep.path, self.settings, self.space, self.objectives)
        self._journal = study.Journal(self.sweep.path / study.JOURNAL)
        self._storage = study.storage(self._journal)
        optuna = study.optuna()
        self._states = optuna.trial.TrialState
        with self._journal.at_once():
            self._study = optuna.create_study(
                study_name=study.NAME,
                storage=self._storage,
                sampler=optuna.samplers.RandomSampler(),  # never asked
                pruner=optuna.pruners.NopPruner(),
                directions=[objective.direction for objective in self.objectives],
                load_if_exists=True,
            )
        self._distributions = {key: dimension.distribution() for key, dimension in self.space.searched.items()}
        self._count = samplers.limit(self.settings, self.space)
        self._go_on()

    def _go_on(self) -> None:
        """Take up what an earlier start has left."""
        trials = self.trials()
        self._known = len(trials)
        self._register(trials)
        running = [trial.number for trial in trials if not trial.state.is_finished()]
        self._waiting = [number for number in running if not self._settle(number)]
        if trials:
            left = f"{len(self._waiting)} go on, " if self._waiting else ""
            new = max(0, self._count - len(trials))
            print_to_stderr(
                f"note: {len(trials) - len(self._waiting)} of {self._count} trials have ended, {left}{new} are new"
            )

    def trials(self) -> list[Any]:
        """All trials of the study, in the order of their numbers."""
        trials: list[Any] = self._study.get_trials(deepcopy=False)
        return trials

    def take(self, room: int, active: Collection[int] = ()) -> list[Job]:
        """Up to `room` jobs to launch next, after the study got the results of all that have ended.

        `active`: the jobs that were launched and haven't ended. Empty if the search has come to its end.
        """
        ended = [number for number in sorted(self._launched) if number not in active]
        for number in ended:
            self._settle(number)
            self._launched.discard(number)
        if room <= 0 or (self.stop_on_failure and self.sweep.has_failed()):
            return []
        numbers, self._waiting = self._waiting[:room], self._waiting[room:]
        trials = self.trials()
        new = trials[self._known :]
        failing = len(new) >= MAX_FAILED and all(trial.state == self._states.FAIL for trial in new)
        if failing and len(trials) < self._count:
            print_to_stderr(f"error: hydra/sweeper: all {len(new)} new trials have failed, the search ends")
            self._count = len(trials)
        asked = [
            self._ask(number) for number in range(len(trials), min(self._count, len(trials) + room - len(numbers)))
        ]
        self._register(asked)
        self._launched.update(numbers, (trial.number for trial in asked))
        return [self._job(trial) for trial in self.trials() if trial.number in self._launched.difference(active)]

    def _ask(self, number: int) -> Any:
        """A new trial, which is in the journal as a whole or not at all."""
        with self._journal.at_once():
            asking = study.load(self._storage, samplers.sampler(self.settings, self.space, number), self._pruner)
            trial = asking.ask(self._distributions)
            assert trial.number == number
            trial.set_user_attr(OVERRIDES, self.space.overrides(trial.params))
        return self.trials()[number]

    def _register(self, trials: Iterable[Any]) -> None:
        """Give jobs the numbers of their trials. Raises ConfigError if there are jobs that aren't of this search."""
        given = {trial.number: list(_typed(trial)) for trial in trials}
        with FileLock(self.sweep.path / NUMBERING):
            content = self.sweep.record()
            foreign = [number for number in given if content.jobs.get(number, given[number]) != given[number]]
            if foreign:
                problem = f"{self.sweep.path} has jobs that aren't of this search: {', '.join(map(str, foreign))}"
                raise ConfigError([Fault("sweep_dir", problem)])
            if not given.keys() <= content.jobs.keys():
                content.jobs.update(given)
                record.write(self.sweep.path, content)
        self.sweep.asked += [number for number in given if number not in self.sweep.asked]

    def _job(self, trial: Any) -> Job:
        return Job(trial.number, _typed(trial), self.sweep.path / str(trial.number))

    def overrides(self, job: Job) -> list[str]:
        """The overrides of a job as Hydra composes them."""
        return list(self.trials()[job.number].user_attrs[OVERRIDES])

    def _settle(self, number: int) -> bool:
        """Give the study the result of a job, if it has one. Raises ConfigError if it lacks an objective."""
        job = self._job(self.trials()[number])
        state = job.state
        if state not in (*OVER, "failed"):
            return False
        if state == PRUNED:
            self._study.tell(number, state=self._states.PRUNED)
        elif state == "failed":
            self._study.tell(number, state=self._states.FAIL)
        else:
            values = [job.value(objective.name) for objective in self.objectives]
            self._study.tell(number, self._checked(job, values))
        return True

    def _checked(self, job: Job, values: list[float]) -> list[float]:
        for objective, value in zip(self.objectives, values, strict=True):
            if not math.isfinite(value):
                known = job.names()
                problem = f"job {job.number} has no {objective.name}, {nearest(objective.name, known)}"
                raise ConfigError([Fault(f"{PLACE}.objectives", problem)])
        return values

    def best(self) -> list[Any]:
        """The best trial; with several objectives, those that no other beats in all of them. Without pruned ones."""
        if all(trial.state != self._states.COMPLETE for trial in self.trials()):
            return []
        return list(self._study.best_trials) if len(self.objectives) > 1 else [self._study.best_trial]

    def finish(self) -> str:
        """Write best.yaml; returns what the search came to, in a few lines."""
        best = self.best()
        entries = [
            {
                "job": trial.number,
                "values": dict(zip((each.name for each in self.objectives), trial.values, strict=True)),
                OVERRIDES: list(_typed(trial)),
            }
            for trial in best
        ]
        atomic.write(self.sweep.path / BEST, yaml.safe_dump(entries, sort_keys=False, allow_unicode=True).encode())
        names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "not finished"}
        states = [trial.state.name for trial in self.trials()]
        counts = ", ".join(f"{states.count(state)} {name}" for state, name in names.items() if state in states)
        lines = [f"best: {self._shown(trial)}" for trial in best[:MAX_BEST]]
        more = [f"{len(best) - MAX_BEST} more are in {self.sweep.path / BEST}"] if len(best) > MAX_BEST else []
        return "\n".join([f"{len(states)} trials: {counts}", *lines, *more])

    def _shown(self, trial: Any) -> str:
        values = ", ".join(each.show(value) for each, value in zip(self.objectives, trial.values, strict=True))
        own = [text.lstrip("+") for text in trial.user_attrs[OVERRIDES] if text not in self.space.fixed]
        return f"job {trial.number}, {values}: {' '.join(own)}"


def _typed(trial: Any) -> tuple[str, ...]:
    """The overrides of a trial as one types them."""
    return tuple(text.lstrip("+") for text in trial.user_attrs[OVERRIDES])
