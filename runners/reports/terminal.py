"""A report as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cnn.text import columns, printable
from runners.reports.cells import cells, heading, not_counted, notes, outcome, titles
from runners.reports.collecting import Collection
from runners.reports.facts import facts
from runners.reports.grouping import Table
from runners.reports.runs import Run


def report(collection: Collection, found: Sequence[Table]) -> str:
    """The tables, then what isn't counted, then notes."""
    return "\n\n".join("\n".join(block) for block in _blocks(collection, found))


def _blocks(collection: Collection, found: Sequence[Table]) -> Iterator[list[str]]:
    for table in found:
        rows = [titles(table), *(cells(table, group) for group in table.groups)]
        align = "<" * len(table.columns) + ">" * (len(rows[0]) - len(table.columns) - 1) + "<"
        yield [heading(table, found), *columns(rows, align)]
    if missing := not_counted(collection.runs):
        rows = [[printable(run.path), outcome(run)] for run in missing]
        yield ["not counted:", *(f"  {line}" for line in columns(rows))]
    if lines := notes(collection, found):
        yield [f"note: {line}" for line in lines]


def one_run(run: Run) -> str:
    """Where a run comes from, and what it came to."""
    lines = [f"run {printable(run.path)}: {printable(run.state_text)}"]
    rows = [[name, printable(text)] for name, text in facts(run) if text]
    return "\n".join([*lines, *(f"  {line}" for line in columns(rows))])
