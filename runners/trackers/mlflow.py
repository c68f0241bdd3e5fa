"""MLflow: `sqlite:///mlflow.db` in the working directory unless a config or MLFLOW_TRACKING_URI names another store."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from runners.trackers.tracker import About, Tracker, as_text

DEFAULT_URI = "sqlite:///mlflow.db"
IDENTITY = "cnn.identity"
"""The tag by which a resumed run finds its record."""
STATES = {"done": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
MAX_NAME = 250
MAX_PARAMETER = 6000
MAX_TAG = 5000
"""Characters of names and values that every store takes."""
BATCH = 100


class MLflow(Tracker):
    """Uses the client alone, whose calls write before they return, and no run of the process's own."""

    kind = "mlflow"
    package = "mlflow"

    def __init__(self, tracking_uri: str | None = None, experiment: str | None = None) -> None:
        self.tracking_uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
        self.experiment = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "cnn-from-scratch"

    def start(self, run: About, rows: Sequence[Mapping[str, float]]) -> None:
        """Find the record of a run that resumes, or make one; add the parameters and rows that it lacks."""
        from mlflow.tracking import MlflowClient

        self._make_file()
        self.client = MlflowClient(tracking_uri=self.tracking_uri)
        experiment = self._experiment_id()
        found = self.client.search_runs([experiment], f"tags.`{IDENTITY}` = '{run.identity}'", max_results=1)
        if found:
            record = found[0]
            self.client.update_run(record.info.run_id, status="RUNNING")
        else:
            record = self.client.create_run(experiment, tags={IDENTITY: run.identity}, run_name=run.name)
        self.run_id = record.info.run_id
        self.last = 0
        self._describe(run, record.data.params)
        known = {name: self._history(name) for row in rows[:1] for name in record.data.metrics if name in row}
        for row in rows:
            epoch = int(row["epoch"])
            new = {name: value for name, value in row.items() if known.get(name, {}).get(epoch) != value}
            self._log(new, epoch)

    def epoch(self, row: Mapping[str, float]) -> None:
        self._log(row, int(row["epoch"]))

    def finish(self, summary: Mapping[str, float], figures: Sequence[Path]) -> None:
        """The summary's numbers, at the last epoch, and the files as artifacts."""
        self._log({f"summary/{name}": value for name, value in summary.items()}, self.last)
        for file in figures:
            self.client.log_artifact(self.run_id, str(file), "figures")

    def close(self, state: str) -> None:
        self.client.set_terminated(self.run_id, STATES[state])

    def _experiment_id(self) -> str:
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(self.experiment)
        if found is None:
            try:
                return str(self.client.create_experiment(self.experiment, self._artifacts()))
            except MlflowException:  # another run has made it meanwhile, or it can't be made
                found = self.client.get_experiment_by_name(self.experiment)
                if found is None:
                    raise
        return str(found.experiment_id)

    def _file(self) -> Path | None:
        """The SQLite file, if that is where the records are."""
        prefix = "sqlite:///"
        return Path(self.tracking_uri.removeprefix(prefix)).absolute() if self.tracking_uri.startswith(prefix) else None

    def _make_file(self) -> None:
        """Make a new SQLite file elsewhere, then give it its name.

        MLflow fills a new file in seconds and many steps. Two runs that do so at the same time break it, and so does
        an end in the middle.
        """
        from mlflow.tracking import MlflowClient

        file = self._file()
        if file is None or file.exists():
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".mlflow-", dir=file.parent) as folder:
            made = Path(folder, file.name)
            MlflowClient(tracking_uri=f"sqlite:///{made}").search_experiments(max_results=1)
            with suppress(FileExistsError):  # another run was faster
                os.link(made, file)

    def _artifacts(self) -> str | None:
        """Where the experiment keeps files: next to an SQLite file; elsewhere the store's own choice."""
        file = self._file()
        return (file.parent / "mlruns" / re.sub(r"\W", "_", self.experiment)).as_uri() if file else None

    def _describe(self, run: About, known: Mapping[str, str]) -> None:
        """The parameters, and where the run comes from. MLflow never changes a parameter; what a resume changes is a
        tag `resumed.KEY`.
        """
        from mlflow.entities import Param, RunTag

        config = {_name(key): as_text(value)[:MAX_PARAMETER] for key, value in run.config.items()}
        parameters = [Param(key, value) for key, value in config.items() if key not in known]
        changed = {f"resumed.{key}": value for key, value in config.items() if known.get(key, value) != value}
        facts = {"run_dir": run.directory, "tags": ", ".join(run.tags), **run.facts, **changed}
        tags = [RunTag(_name(key), str(value)[:MAX_TAG]) for key, value in facts.items() if value]
        for items, name in ((parameters, "params"), (tags, "tags")):
            for first in range(0, len(items), BATCH):
                self.client.log_batch(self.run_id, **{name: items[first : first + BATCH]})
        self.client.log_artifact(self.run_id, str(Path(run.directory, "config.yaml")))

    def _history(self, name: str) -> dict[int, float]:
        """The value of a metric at each epoch, as recorded."""
        return {metric.step: metric.value for metric in self.client.get_metric_history(self.run_id, name)}

    def _log(self, values: Mapping[str, float], epoch: int) -> None:
        from mlflow.entities import Metric

        self.last = epoch
        now = int(time.time() * 1000)
        metrics: list[Any] = [Metric(_name(name), float(value), now, epoch) for name, value in values.items()]
        for first in range(0, len(metrics), BATCH):
            self.client.log_batch(self.run_id, metrics=metrics[first : first + BATCH])


def _name(key: str) -> str:
    """A name that MLflow accepts."""
    return re.sub(r"[^\w./ :-]", "_", key, flags=re.ASCII)[:MAX_NAME]
