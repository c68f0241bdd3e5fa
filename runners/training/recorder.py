"""Record a run while it trains: in its own files, and through listeners that display it or pass it on.

The loop reports events, `step`, `epoch` and `save`, and knows no files or terminals.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from tqdm import tqdm

from cnn.schedules import RunLength
from runners.files import checkpoint, metrics_csv
from runners.files.content import Checkpoint
from runners.files.metrics_csv import Row
from runners.files.run_directory import RunDirectory
from runners.tasks.task import Task
from runners.training.progress import Progress

log = logging.getLogger(__name__)


def announce(text: str) -> None:
    """Log a line, and print it, above a progress bar if there is one."""
    log.warning("%s", text)
    with suppress(OSError):  # a closed terminal doesn't stop a run
        tqdm.write(text, file=sys.stderr)


PRUNED = "pruned"
"""How the reason begins with which a listener prunes a run: such a run ends as `pruned`, not as `done`."""


class Listener:
    """The base of listeners to the events of a run. A returned string is a reason to stop training after the epoch.

    A listener that raises an exception is dropped with a warning.
    """

    def begin(self, progress: Progress) -> str | None:
        """Training starts or resumes."""

    def step(self, progress: Progress) -> str | None:
        """An optimizer step is finished."""

    def epoch(self, row: Row, progress: Progress) -> str | None:
        """An epoch is finished and saved."""

    def end(self) -> None:
        """Training has ended, successfully or not."""


class RunFiles:
    """The checkpoints and metrics.csv of a run. A failure to write them ends the run."""

    def __init__(self, directory: RunDirectory, columns: Sequence[str], state: Callable[[], Checkpoint]) -> None:
        self.directory = directory
        self.columns = columns
        self.state = state

    def save(self, which: str) -> None:
        checkpoint.save(self.directory.checkpoint(which), self.state())

    def write(self, rows: Sequence[Row]) -> None:
        metrics_csv.write(self.directory.metrics, self.columns, rows)


class Recorder:
    """Passes events on, to the run's files first."""

    def __init__(self, files: RunFiles, listeners: Sequence[Listener] = ()) -> None:
        self.files = files
        self.reason: str | None = None
        """Why a listener wants training to stop."""
        self._listeners = list(listeners)

    def save(self, which: str) -> None:
        """Write the checkpoint `which`: `last` or `best`."""
        self.files.save(which)

    def begin(self, progress: Progress) -> None:
        """Write the current state, so that an unwritable directory is noticed before the first step."""
        self.save("last")
        self.files.write(progress.rows)
        self._notify(lambda listener: listener.begin(progress))

    def step(self, progress: Progress) -> None:
        self._notify(lambda listener: listener.step(progress))

    def epoch(self, row: Row, progress: Progress) -> None:
        self.files.write(progress.rows)
        self._notify(lambda listener: listener.epoch(row, progress))

    def end(self) -> None:
        self._notify(lambda listener: listener.end())

    def _notify(self, event: Callable[[Listener], str | None]) -> None:
        for listener in [*self._listeners]:
            try:
                self.reason = event(listener) or self.reason
            except Exception as error:
                self._listeners.remove(listener)
                log.warning("%s failed and is disabled: %s", type(listener).__name__, error, exc_info=True)


class Console(Listener):
    """Logs a line per epoch. On a terminal, it is printed above a progress bar of the steps."""

    def __init__(self, task: Task, length: RunLength) -> None:
        self.task = task
        self.length = length

    def begin(self, progress: Progress) -> None:
        self.bar = tqdm(total=self.length.steps, initial=progress.step, unit="step", disable=None, leave=False)

    def step(self, progress: Progress) -> None:
        self.bar.update()

    def epoch(self, row: Row, progress: Progress) -> None:
        line = self._line(row)
        log.info(line)
        if not self.bar.disable:
            with suppress(OSError):  # a closed terminal doesn't stop a run
                self.bar.write(line, file=sys.stderr)

    def end(self) -> None:
        self.bar.close()

    def _line(self, row: Row) -> str:
        parts = [f"epoch {row['epoch']}/{self.length.epochs}"]
        parts += [f"{name} {value:.4g}" for name, value in row.items() if name.partition("/")[0] == "lr"]
        for split in ("train", "val"):
            shown = [
                f"{metric.name} {metric.show(row[column])}"
                for metric in self.task.metrics
                if (column := f"{split}/{metric.name}") in row
            ]
            parts += [f"{split} {' '.join(shown)}"] if shown else []
        return "  ".join([*parts, f"{row['images_per_second']:.0f} images/s"])
