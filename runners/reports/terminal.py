"""A report as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cnn.text import columns, printable
from runners.reports.cells import cells, figure, heading, not_counted, notes, outcome, titles
from runners.reports.collecting import Collection
from runners.reports.grouping import Table
from runners.reports.runs import Run, part


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


def facts(run: Run) -> Iterator[tuple[str, str]]:
    """What is known of a run, each with its name; an empty text is unknown."""
    if run.monitor and run.value is not None:
        test = "" if run.test is None else f", {run.monitor.test} {figure(run.test)}"
        yield "result", f"{run.monitor.column} {figure(run.value)} in epoch {run.best.get('epoch')}{test}"
    yield "called", " ".join([_text(run.config.get("name")), *_texts(run.config.get("tags"))]).strip()
    yield "seed", _text(run.seed)
    yield "started", _text(run.status.get("started"))
    yield "commit", commit(run.origin)
    yield "changes", changes(run, run.path)
    resumes = run.status.get("resumed")
    for resumed in resumes if isinstance(resumes, list) else ():
        if isinstance(resumed, Mapping):
            yield "resumed", ", ".join(f"{key} {_text(value)}" for key, value in resumed.items() if value)
    yield "repeat with", _text(run.origin.get("command"))
    yield "host", _text(run.origin.get("host"))
    yield "device", " ".join([_text(run.status.get("device")), _text(run.status.get("device_name"))]).strip()
    yield "versions", ", ".join(f"{name} {_text(version)}" for name, version in part(run.status, "versions").items())


def commit(origin: Mapping[str, Any]) -> str:
    """The commit and the branch of the code."""
    if not origin.get("commit"):
        return "unknown" if origin else ""
    branch = f" on branch {origin['branch']}" if origin.get("branch") else ""
    return f"{origin['commit']}{branch}"


def changes(run: Run, folder: Path) -> str:
    """What had changed in the code since its commit. `folder`: how to name the run's directory."""
    origin = run.origin
    if not origin.get("commit"):
        return ""
    if not origin.get("dirty"):
        return "none"
    texts = []
    if (run.path / "changes.patch").is_file():
        first = "" if origin.get("patch_is_whole", True) else "the first part of them "
        texts.append(f"dirty: {first}in {folder / 'changes.patch'}")
    elif not origin.get("untracked"):
        texts.append("dirty, and the patch is missing")
    if names := _texts(origin.get("untracked")):
        texts.append(f"files that git doesn't know: {', '.join(names)}")
    return "; ".join(texts)


def _text(value: Any) -> str:
    return "" if value is None else ", ".join(_texts(value)) if isinstance(value, list) else str(value)


def _texts(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [value] if isinstance(value, str) else []
