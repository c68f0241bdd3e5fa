"""The contract of a tracker: what it is given of a run, from the start to the end.

A tracker's process imports this module and the tracker's own, and neither torch nor `cnn`: it starts quickly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar


@dataclass(frozen=True)
class About:
    """A run, for a tracker that starts or goes on to record it."""

    identity: str
    """The same in every process that goes on with this run, and in no other run."""
    directory: str
    """The absolute path of the run directory."""
    name: str
    tags: Sequence[str]
    config: Mapping[str, Any]
    """The config by dotted keys. Lists, such as the layers of a model, are values."""
    facts: Mapping[str, str]
    """Where the run comes from: commit, branch, host, command."""
    pid: int
    """The process that trains."""


class Tracker:
    """Records one run. The constructor's arguments are those of a config: texts and numbers, checked by their types.

    An instance is made twice: where a config is checked, which only needs the constructor, and in a process of its
    own, where the methods are called. The library is imported in the methods. An exception in one of them ends that
    process, with a warning, and never the run.
    """

    kind: ClassVar[str]
    """The name in a config."""
    package: ClassVar[str] = ""
    """The package that has to be installed, and the extra that installs it; none if empty."""

    def start(self, run: About, rows: Sequence[Mapping[str, float]]) -> None:
        """Record the hyperparameters, and these rows: all of the run so far, if it resumes."""
        raise NotImplementedError

    def epoch(self, row: Mapping[str, float]) -> None:
        """Record one more row of metrics.csv. A row may lack a column."""
        raise NotImplementedError

    def finish(self, summary: Mapping[str, float], figures: Sequence[Path]) -> None:
        """Record the numbers of summary.json, and the files of the folder figures."""

    def close(self, state: str) -> None:
        """The run is `done`, `failed` or `interrupted`: write what isn't written yet."""


def as_text(value: object) -> str:
    """A value of a config as a text: strings as they are, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)
