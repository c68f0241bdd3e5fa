"""Find the runs and sweeps below folders."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from runners.errors import InputError, short
from runners.files.paths import SWEEP, user_path
from runners.reports.reading import Unreadable, read_yaml
from runners.reports.runs import Run, is_run, part, read_run


@dataclass(frozen=True)
class Sweep:
    """A folder with a sweep.yaml: the command, where it comes from, and the overrides of each job."""

    path: Path
    command: str = ""
    origin: Mapping[str, Any] = field(default_factory=dict)
    jobs: Mapping[str, Sequence[str]] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True)
class Collection:
    """Everything below some folders; `runs` includes those that can't be read, and jobs that haven't started."""

    paths: Sequence[Path]
    runs: Sequence[Run]
    sweeps: Sequence[Sweep]


def collect(texts: Sequence[str]) -> Collection:
    """Read all runs and sweeps below these folders. Raises InputError if there is no such folder, or no run in it."""
    paths = [user_path(text) for text in texts]
    runs: dict[Path, Path] = {}
    sweeps: dict[Path, Path] = {}
    for path in paths:
        if not path.is_dir():
            raise InputError(f"{short(path)}: there is no such folder")
        found_runs, found_sweeps = _find(path)
        if not (found_runs or found_sweeps):
            raise InputError(f"{short(path)}: there are no runs below it")
        for known, found in ((runs, found_runs), (sweeps, found_sweeps)):
            for folder in found:
                known.setdefault(folder.resolve(), folder)
    read = [read_run(path) for path in tqdm(runs.values(), "reading runs", unit="run", disable=None, leave=False)]
    described = [_sweep(path) for path in sweeps.values()]
    waiting = [job for sweep in described for job in _not_started(sweep)]
    return Collection(paths, [*read, *waiting], described)


def _find(top: Path) -> tuple[list[Path], list[Path]]:
    """The runs and the sweeps below a folder, or the folder itself, in a natural order. Links aren't followed."""
    runs, sweeps = [], []
    for folder, inner, files in os.walk(top):
        path = Path(folder)
        if SWEEP in files:
            sweeps.append(path)
        if is_run(path):
            runs.append(path)
            inner.clear()
        inner[:] = sorted((name for name in inner if not name.startswith(".")), key=_natural)
    return runs, sweeps


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A sort key that puts 10 after 9."""
    texts = re.findall(r"[0-9]+|[^0-9]+", name)
    return [(0, int(text), "") if text.isdecimal() and len(text) < 1000 else (1, 0, text) for text in texts]


def _sweep(path: Path) -> Sweep:
    try:
        content = read_yaml(path / SWEEP)
    except Unreadable as error:
        return Sweep(path, problem=str(error))
    jobs = {
        str(number): [str(text) for text in overrides]
        for number, overrides in part(content, "jobs").items()
        if isinstance(overrides, list) and str(number).isdecimal()
    }
    return Sweep(path, str(content.get("command") or ""), part(content, "origin"), jobs)


REPORTS = {"debug=summary", "debug=gradcheck", "debug=overfit"}
"""What jobs print a report with, instead of making a run directory."""


def _not_started(sweep: Sweep) -> Iterator[Run]:
    for name, overrides in sweep.jobs.items():
        if not is_run(sweep.path / name) and not REPORTS.intersection(overrides):
            yield Run(sweep.path / name, "not started", overrides=overrides)
