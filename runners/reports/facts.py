"""Where a run comes from, and what it came to, as short texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runners.reports.cells import figure
from runners.reports.runs import Run, part


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
