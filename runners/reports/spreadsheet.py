"""A report as CSV and as Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from cnn.text import printable, yaml
from runners.reports.cells import cells, heading, not_counted, notes, outcome, titles
from runners.reports.collecting import Collection
from runners.reports.grouping import Group, Table
from runners.reports.runs import Run
from runners.reports.values import ABSENT

STATISTICS = "mean", "spread", "low", "high", "count"


def as_csv(found: Sequence[Table], others: Sequence[Run]) -> str:
    """A line for each group, with all digits, then one for each run that belongs to no group.

    `runs` are the directories that count, `not_counted` the others with their state, both separated by newlines.
    """
    keys = list(dict.fromkeys(printable(key) for table in found for key in table.columns))
    names = ["monitor", "better", "task", *keys, *STATISTICS, *(f"test_{name}" for name in STATISTICS)]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*names, "runs", "not_counted"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(_line(table, group) for table in found for group in table.groups)
    writer.writerows({"not_counted": _state(run)} for run in others)
    return text.getvalue()


def _line(table: Table, group: Group) -> Mapping[str, Any]:
    monitor = table.monitor
    settings = dict(zip(table.columns, table.settings(group), strict=True))
    numbers = {
        f"{test}{name}": getattr(found, name)
        for test, found in (("", group.result), ("test_", group.test))
        if found
        for name in STATISTICS
    }
    return {
        **{"monitor": monitor.column, "better": monitor.better, "task": table.task},
        **{printable(key): _typed(value) for key, value in settings.items() if value is not ABSENT},
        **{name: repr(value) for name, value in numbers.items() if value is not None},
        "runs": "\n".join(printable(run.path) for run in group.counted),
        "not_counted": "\n".join(map(_state, group.not_counted)),
    }


def _typed(value: Any) -> str:
    return value if isinstance(value, str) else yaml([value])[2:] if _nested(value) else yaml(value)


def _nested(value: Any) -> bool:
    return isinstance(value, list | Mapping)


def _state(run: Run) -> str:
    return printable(f"{run.path}: {run.state_text}")


def as_markdown(collection: Collection, found: Sequence[Table]) -> str:
    """Tables for a README or an issue."""
    blocks = []
    for table in found:
        lines = [titles(table), ["---"] * len(titles(table)), *(cells(table, group) for group in table.groups)]
        blocks.append([f"**{_escaped(heading(table, found))}**", "", *map(_row, lines)])
    if missing := not_counted(collection.runs):
        blocks.append(["Not counted:", "", *(f"- {_escaped(f'{run.path}: {outcome(run)}')}" for run in missing)])
    if lines_below := notes(collection, found):
        blocks.append([f"- {_escaped(line)}" for line in lines_below])
    return "\n\n".join("\n".join(block) for block in blocks)


def _row(texts: Sequence[str]) -> str:
    return f"| {' | '.join(text if text == '---' else _escaped(text) for text in texts)} |"


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    return "".join(f"\\{sign}" if sign in "\\`*_[]<>|#~" else sign for sign in printable(" ".join(text.split())))
