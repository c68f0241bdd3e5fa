"""Numbers, settings and statistics as short texts, and what a report says below its tables."""

from __future__ import annotations

from collections.abc import Sequence

from cnn.text import printable
from runners.reports.collecting import Collection
from runners.reports.grouping import Group, Table, repeated_seeds
from runners.reports.runs import Run
from runners.reports.statistics import Statistic
from runners.reports.values import NOTHING


def figure(value: float | None) -> str:
    """A number with four decimals, or four digits if it is large or small."""
    if value is None:
        return NOTHING
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.4g}"


def spread(value: float | None) -> str:
    """A standard deviation with four decimals, or two digits if it is small."""
    return figure(value) if not value or value >= 1e-3 else f"{value:.4f}" if value >= 5e-5 else f"{value:.2g}"


def interval(found: Statistic | None) -> str:
    """The 95 % interval."""
    return NOTHING if found is None or found.low is None else f"{figure(found.low)} .. {figure(found.high)}"


def missing(group: Group) -> str:
    """How many runs of a group aren't counted, by their state."""
    states = [run.state for run in group.not_counted]
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)) or NOTHING


def heading(table: Table, among: Sequence[Table]) -> str:
    """What a table shows, in one line."""
    groups = f"{counted(len(table.runs), 'run')} in {counted(len(table.groups), 'group')}"
    task = f", task {printable(table.task)}" if len(among) > 1 and table.task else ""
    return f"{printable(table.monitor.column)} ({table.monitor.better} is better){task}: {groups}"


def titles(table: Table) -> list[str]:
    """The heads of a table's columns."""
    monitor = table.monitor
    results = [printable(monitor.column), "spread", "95 % interval", "runs"]
    return [*map(printable, table.columns), *results, *([printable(monitor.test)] * table.has_test), "not counted"]


def cells(table: Table, group: Group) -> list[str]:
    """A group's line of a table."""
    found = group.result
    test = [figure(group.test.mean if group.test else None)] if table.has_test else []
    numbers = [figure(found.mean), spread(found.spread)] if found else [NOTHING, NOTHING]
    return [
        *table.texts(group),
        *numbers,
        interval(found),
        str(found.count if found else 0),
        *test,
        missing(group),
    ]


def outcome(run: Run) -> str:
    """The state of a run that isn't counted, how far it came, and what it was to do if no table says so."""
    text = printable(run.state_text)
    if run.value is not None and run.monitor:
        text += f"; best so far {printable(run.monitor.column)} {figure(run.value)} in epoch {run.best.get('epoch')}"
    return text if run.config or not run.overrides else f"{text}; {printable(' '.join(run.overrides))}"


def notes(collection: Collection, found: Sequence[Table]) -> list[str]:
    """What a reader of the means has to know."""
    groups = [group for table in found for group in table.groups]
    lines = [f"{printable(sweep.path)}: {printable(sweep.problem)}" for sweep in collection.sweeps if sweep.problem]
    if same := sum(group.repeated for group in groups):
        are = "repeats another run to the bit, and is" if same == 1 else "repeat other runs to the bit, and are"
        lines.append(f"{counted(same, 'run')} {are} counted once")
    for group in groups:
        if seeds := repeated_seeds(group):
            which = ", ".join(seeds)
            lines.append(f"several runs of seed {which} differ, and each counts: {_paths(group, seeds)}")
    return lines


def _paths(group: Group, seeds: Sequence[str]) -> str:
    return ", ".join(printable(run.path) for run in group.counted if str(run.seed) in seeds)


def not_counted(runs: Sequence[Run]) -> list[Run]:
    """Every failed, unfinished, unreadable or missing run."""
    return [run for run in runs if not run.counts]


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
