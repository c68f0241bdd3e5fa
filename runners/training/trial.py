"""A job of a search reports each epoch to the study, which may prune it.

Whether a run is such a job is seen from its directory: it is named for a trial of the search in the one above it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from runners.files.metrics_csv import Row
from runners.training import study
from runners.training.progress import Progress
from runners.training.recorder import PRUNED, Listener

log = logging.getLogger(__name__)


def listeners(run: Path, epochs: int) -> list[Listener]:
    """A listener if a run is a job of a search that prunes, and hasn't ended for it; else none."""
    file = run.parent / study.SEARCH
    if not run.name.isdecimal() or not file.is_file():
        return []
    try:
        search = yaml.safe_load(file.read_text(encoding="utf-8"))
        if search["pruner"] in (None, "none"):
            return []
        trial = Trial(run, search, epochs)
        return [trial] if trial.is_running else []
    except Exception as error:  # such as Optuna missing on another machine
        log.warning("warning: %s: this run can't report to its search: %s", file, error, exc_info=True)
        return []


class Trial(Listener):
    """Reports the objective of a run after each epoch, once, and asks the pruner whether to go on."""

    def __init__(self, run: Path, search: Mapping[str, Any], epochs: int) -> None:
        (self.objective,) = search["objectives"]
        self.epochs = epochs
        self.pruner = study.pruner(search["pruner"])
        self.journal = study.Journal(run.parent / study.JOURNAL)
        self.storage = study.storage(self.journal)
        self.study = study.load(self.storage, pruner=self.pruner)
        place = self.storage.get_study_id_from_name(study.NAME), int(run.name)
        self.number = self.storage.get_trial_id_from_study_id_trial_number(*place)

    @property
    def is_running(self) -> bool:
        return not self._trial().state.is_finished()

    def begin(self, progress: Progress) -> str | None:
        """Report an epoch after which the run was killed before it had reported it."""
        verdict = self._trial().user_attrs.get(PRUNED)
        return verdict or self._report(progress)

    def epoch(self, row: Row, progress: Progress) -> str | None:
        return self._report(progress)

    def _report(self, progress: Progress) -> str | None:
        """Report the epochs that haven't been reported; returns a reason to stop if the run is pruned."""
        known = self._trial().intermediate_values
        rows = [row for row in progress.rows if self.objective in row and row["epoch"] not in known]
        if not rows:
            return None
        with self.journal.at_once():  # a verdict is known to a resumed run, or is asked for again
            for row in rows:
                self.storage.set_trial_intermediate_value(self.number, int(row["epoch"]), row[self.objective])
            if progress.epoch >= self.epochs or not self.pruner.prune(self.study, self._trial()):
                return None
            reason = f"{PRUNED} after epoch {progress.epoch} with {self.objective} {rows[-1][self.objective]:.6g}"
            self.storage.set_trial_user_attr(self.number, PRUNED, reason)
        return reason

    def _trial(self) -> Any:
        return self.storage.get_trial(self.number)
