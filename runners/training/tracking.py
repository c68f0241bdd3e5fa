"""The trackers of a run: they hear what its recorder reports, then its summary and figures, then how it ended."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from runners.config.saved import flat
from runners.config.schema import Config
from runners.errors import short
from runners.files.metrics_csv import Row
from runners.files.run_directory import RunDirectory
from runners.signals import SignalWatch
from runners.trackers.process import TrackerProcess
from runners.trackers.registry import Chosen
from runners.trackers.tracker import About
from runners.training.progress import Progress
from runners.training.recorder import Listener, announce

log = logging.getLogger(__name__)

FACTS = ("commit", "branch", "host", "command")
"""What trackers are given of `origin` in status.json."""


class Trackers:
    """The trackers that a config names. Until `listeners` is called, and without any, all of this does nothing."""

    def __init__(self, config: Config, directory: RunDirectory, watch: SignalWatch) -> None:
        self._chosen = config.trackers()
        self._config = config
        self._directory = directory
        self._watch = watch
        self._tracking: list[Tracking] = []

    @property
    def identity(self) -> dict[str, str]:
        """For status.json: what trackers know this run by, also after a resume."""
        known = self._directory.saved_status("tracked_as", "")
        return {"tracked_as": known or secrets.token_hex(8)} if known or self._chosen else {}

    def listeners(self, columns: Sequence[str]) -> list[Listener]:
        """A listener for each tracker, which records these columns of each row."""
        about = self._about() if self._chosen else None
        self._tracking = [Tracking(chosen, about, columns) for chosen in self._chosen if about]
        return [*self._tracking]

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Pass on the numbers of summary.json, and the files in the folder figures."""
        figures = sorted(str(file) for file in self._directory.path.absolute().glob("figures/*.*"))
        for tracking in self._tracking:
            tracking.send({"do": "finish", "summary": numbers(summary), "figures": figures})

    def close(self) -> None:
        """Wait for the trackers to end; how the run has ended is in its status."""
        state = self._directory.saved_status("state", "failed")
        for tracking in self._tracking:
            tracking.send({"do": "close", "state": state})  # all at the same time
        for tracking in self._tracking:
            tracking.close(self._watch)

    def _about(self) -> About:
        directory, config = self._directory, self._config
        tags = config.settings.tags
        origin: dict[str, str] = directory.saved_status("origin", {})
        return About(
            identity=directory.saved_status("tracked_as", ""),
            directory=str(directory.path.absolute()),
            name=config.settings.name or str(directory.path),
            tags=[tags] if isinstance(tags, str) else list(tags),
            config=flat(config.saved),
            facts={name: origin[name] for name in FACTS if origin.get(name)},
            pid=directory.saved_status("pid", 0),
        )


class Tracking(Listener):
    """One tracker. What fails in it is announced once."""

    def __init__(self, chosen: Chosen, about: About, columns: Sequence[str]) -> None:
        self._chosen = chosen
        self._about = about
        self._columns = columns
        self._process: TrackerProcess | None = None

    def begin(self, progress: Progress) -> None:
        try:
            self._process = TrackerProcess(self._chosen.tracker, self._chosen.arguments)
        except OSError as error:
            self._announce(f"{type(error).__name__}: {error}")
            return
        rows = [self._recorded(row) for row in progress.rows]
        self.send({"do": "start", "run": asdict(self._about), "rows": rows})

    def epoch(self, row: Row, progress: Progress) -> str | None:
        self.send({"do": "epoch", "row": self._recorded(row)})
        return None

    def send(self, request: Mapping[str, Any]) -> None:
        if self._process:
            self._process.send(request)
            self._notice()

    def close(self, watch: SignalWatch) -> None:
        if self._process:
            self._process.close(lambda: watch.received is not None)
            self._notice()

    def _recorded(self, row: Row) -> Row:
        """The columns of metrics.csv."""
        return {name: row[name] for name in self._columns if name in row}

    def _notice(self) -> None:
        """Announce a failure, and forget the process."""
        if self._process and self._process.failure:
            failure, self._process = self._process.failure, None
            self._announce(failure.reason)
            if failure.traceback:
                log.info("%s", failure.traceback)

    def _announce(self, reason: str) -> None:
        announce(f"warning: the tracker {self._chosen.tracker.kind} failed and is off: {short(reason)}")


def numbers(summary: Mapping[str, Any], place: str = "") -> dict[str, float]:
    """The numbers of a summary by name: `best/val/accuracy`, `test/accuracy`, `seconds`."""
    found: dict[str, float] = {}
    for key, value in summary.items():
        if isinstance(value, Mapping):
            found |= numbers(value, f"{place}{key}/")
        elif isinstance(value, int | float):
            found[key if place and key.startswith(place) else f"{place}{key}"] = value
    return found
