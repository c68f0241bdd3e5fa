"""The objectives of a search: numbers of a job's summary, and which way each is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cnn.faults import ConfigError, Fault
from cnn.text import nearest
from runners.config import extensions
from runners.sweeps.search_settings import PLACE, SearchSettings
from runners.tasks.registry import TASKS
from runners.tasks.task import Metric, Task
from runners.training import debug

FACTS = {
    "parameters": "minimize",
    "steps": "minimize",
    "seconds": "minimize",
    "gpu_memory_bytes": "minimize",
    "images_per_second": "maximize",
}
"""Numbers that every task has in its summary."""
DIRECTIONS = {"higher": "maximize", "lower": "minimize"}


@dataclass(frozen=True)
class Objective:
    """A number of a job's summary. `metric`: how it is shown, if it is one of the task's."""

    name: str
    direction: str
    metric: Metric | None = None

    def show(self, value: float) -> str:
        """`val accuracy 98.50%`."""
        if self.metric is None:
            return f"{self.name} {value:,.10g}"
        return f"{self.name.partition('/')[0]} {self.metric.name} {self.metric.show(value)}"


def objectives(settings: SearchSettings, config: Mapping[str, Any]) -> list[Objective]:
    """The objectives of a search over jobs with such a config; by default, what its task monitors.

    Raises ConfigError if one is unknown, or if it isn't known which way it is better.
    """
    if config.get("debug") in debug.REPORTS:
        raise ConfigError(
            [Fault("debug", f"{config['debug']} prints a report and trains nothing that can be compared")]
        )
    task = _task(config)
    names = settings.names or [task.monitor]
    found: list[Objective] = []
    faults: list[Fault] = []
    for name, given in zip(names, settings.ways or [""] * len(names), strict=True):
        metric = task.metric(name) if name in _measured(task) else None
        direction = given or (DIRECTIONS.get(str(metric.better)) if metric else FACTS.get(name))
        if not direction and metric is None and name not in FACTS:
            faults.append(Fault(f"{PLACE}.objectives", f"unknown {name}, {nearest(name, [*_measured(task), *FACTS])}"))
        elif not direction:
            problem = f"it isn't known which way {name} is better, give minimize or maximize for each objective"
            faults.append(Fault(f"{PLACE}.directions", problem))
        found.append(Objective(name, str(direction), metric))
    if settings.prunes and names[0] not in task.columns():
        problem = f"{names[0]} isn't measured after each epoch, give an objective that is: {', '.join(task.columns())}"
        faults.append(Fault(f"{PLACE}.pruner", problem))
    if faults:
        raise ConfigError(faults)
    return found


def _task(config: Mapping[str, Any]) -> type[Task]:
    extensions.load(config.get("extensions"))
    section = config.get("task")
    name = section.get("name") if isinstance(section, Mapping) else None
    if not isinstance(name, str) or name not in TASKS:
        raise ConfigError([Fault("task.name", f"unknown {name}, {nearest(str(name), TASKS)}")])
    return TASKS[name]


def _measured(task: type[Task]) -> Sequence[str]:
    """The names of what a task measures, of every split."""
    return [*task.columns(), *(f"test/{metric.name}" for metric in task.metrics if "test" in metric.splits)]
