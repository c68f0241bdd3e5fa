"""Runs grouped by what they have in common: the same config but for the seed. A table for each monitor and task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from runners.files.metrics_csv import TIMING
from runners.reports.runs import Monitor, Run
from runners.reports.statistics import Statistic, statistic
from runners.reports.values import canonical, leaves, lookup, names, text_of

IGNORED = {
    *("seed", "run_dir", "sweep_dir", "name", "tags"),
    *("threads", "threads_fixed", "capture", "checkpoint.every_steps", "tracker"),
}
"""Keys that don't change what an experiment is: where it is written, what it is called, how it is computed."""

MAX_PLACES = 3
"""Columns that a list such as model.layers is shown in, if others differ from it only there."""


@dataclass(frozen=True)
class Group:
    """Runs whose configs differ in ignored keys at most."""

    runs: Sequence[Run]
    monitor: Monitor

    @property
    def config(self) -> Mapping[str, Any]:
        return self.runs[0].config

    @cached_property
    def counted(self) -> list[Run]:
        """The runs that count: those that have ended, and a repeated one once."""
        return list({repetition(run): run for run in reversed(self.runs) if run.counts}.values())[::-1]

    @property
    def repeated(self) -> int:
        """How many runs are the same as another one to the bit."""
        return sum(run.counts for run in self.runs) - len(self.counted)

    @property
    def not_counted(self) -> list[Run]:
        """Unfinished and failed runs."""
        return [run for run in self.runs if not run.counts]

    @cached_property
    def result(self) -> Statistic | None:
        """The best monitored values of the runs that count."""
        return statistic([run.value for run in self.counted if run.value is not None])

    @cached_property
    def test(self) -> Statistic | None:
        """The same metric on the test examples, of the runs that have it."""
        return statistic([run.test for run in self.counted if run.test is not None])

    @property
    def order(self) -> tuple[bool, bool, float]:
        """A sort key: the best mean first, groups without one last, by the best value so far."""
        if self.result:
            return False, False, self.monitor.order(self.result.mean)
        values = [self.monitor.order(run.value) for run in self.runs if run.value is not None]
        return True, not values, min(values, default=0)


@dataclass(frozen=True)
class Table:
    """The groups of one monitor and task, best first. `columns`: the settings, as dotted keys, that differ."""

    monitor: Monitor
    task: str
    groups: Sequence[Group]
    columns: Sequence[str]

    @property
    def runs(self) -> list[Run]:
        return [run for group in self.groups for run in group.runs]

    @cached_property
    def has_test(self) -> bool:
        """Whether any group has results on the test examples."""
        return any(group.test for group in self.groups)

    def settings(self, group: Group) -> list[Any]:
        """The group's values in the table's columns."""
        return [lookup(group.config, key) for key in self.columns]

    def texts(self, group: Group) -> list[str]:
        """The group's values as short texts, which differ where values do."""
        return [known[text_of(value)] for known, value in zip(self._names, self.settings(group), strict=True)]

    @cached_property
    def _names(self) -> list[dict[str, str]]:
        return [names(values) for values in zip(*map(self.settings, self.groups), strict=True)]


def tables(runs: Iterable[Run]) -> tuple[list[Table], list[Run]]:
    """The tables of all runs, and the runs that belong to none: unreadable, not started, or without a metric."""
    kinds: dict[tuple[Monitor, str], dict[str, list[Run]]] = {}
    others = []
    for run in runs:
        if run.monitor is None or not run.config:
            others.append(run)
            continue
        of_kind = kinds.setdefault((run.monitor, str(run.config.get("task.name", ""))), {})
        of_kind.setdefault(identity(run.config), []).append(run)
    found = []
    for (monitor, task), groups in kinds.items():
        sorted_groups = sorted((Group(members, monitor) for members in groups.values()), key=lambda group: group.order)
        found.append(Table(monitor, task, sorted_groups, columns([group.config for group in sorted_groups])))
    return found, others


def is_ignored(key: str) -> bool:
    """Whether a key, or the tracker that it is an argument of, changes nothing of what an experiment is."""
    return key in IGNORED or key.startswith("tracker.")


def identity(config: Mapping[str, Any]) -> str:
    """A text that is equal for the configs of one experiment."""
    return canonical({key: value for key, value in config.items() if not is_ignored(key)})


def columns(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys whose values differ, in the order of the configs, without those that others in their section explain.

    A list, such as model.layers, is explained by values such as model.name and model.width if it is the same wherever
    they are. A key that not all configs have, such as optimizer.momentum, is explained by the section's name.
    """
    keys = list(dict.fromkeys(key for config in configs for key in config if not is_ignored(key)))
    texts = {key: [canonical(config[key]) if key in config else "" for config in configs] for key in keys}
    differing = [key for key in keys if len(set(texts[key])) > 1]
    lists = {key for key in differing if any(isinstance(config.get(key), list) for config in configs)}
    plain = [key for key in differing if key not in lists and "" not in texts[key]]

    def explained(key: str) -> bool:
        section = key.rpartition(".")[0]
        within = [other for other in plain if section and other.rpartition(".")[0] == section]
        if key not in lists:
            within = [other for other in within if other == f"{section}.name"] if "" in texts[key] else []
        causes = list(zip(*(texts[other] for other in within), strict=True))
        return bool(causes) and len(set(zip(causes, texts[key], strict=True))) == len(set(causes))

    shown = [key for key in differing if not explained(key)]
    return [place for key in shown for place in (_within(configs, key) if key in lists else [key])]


def _within(configs: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    """Where lists of the same form differ, if in a few places; else the key of the lists."""
    found = [leaves(config.get(key), key) for config in configs]
    if any(each.keys() != found[0].keys() for each in found):
        return [key]
    places = [place for place in found[0] if len({canonical(each[place]) for each in found}) > 1]
    return places if len(places) <= MAX_PLACES else [key]


def repetition(run: Run) -> str:
    """A text that is equal for runs of one seed with the same numbers to the bit, whatever time they took."""
    rows = [{key: value for key, value in row.items() if key not in TIMING} for row in run.rows]
    return canonical([run.seed, rows, run.value, run.summary.get("test")])


def repeated_seeds(group: Group) -> list[str]:
    """Seeds of which several runs, with different results, count."""
    seeds = [canonical(run.seed) for run in group.counted]
    return sorted({seed for seed in seeds if seeds.count(seed) > 1})
