"""What MLflow reads back of a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from runners.cli import train
from runners.trackers import process
from tests.optional import needs
from tests.runners.conftest import Run
from tests.runners.outcomes import status, stop_at
from tests.runners.trackers.libraries import kill_and_resume, limit_files, rows, start, stop_and_resume
from tests.runners.trackers.test_failures import warnings

needs("mlflow", "sqlalchemy", extra="mlflow")
pytestmark = [
    pytest.mark.optional,
    pytest.mark.filterwarnings("default::DeprecationWarning", "default::FutureWarning"),
]


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file without records, which takes seconds to make."""
    from mlflow.tracking import MlflowClient

    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def ready(empty: Path, tmp_path: Path) -> None:
    shutil.copy(empty, tmp_path)


class Store:
    """The records of an SQLite file, the newest first."""

    def __init__(self, file: str = "mlflow.db", experiment: str = "cnn-from-scratch") -> None:
        from mlflow.tracking import MlflowClient

        self.client = MlflowClient(tracking_uri=f"sqlite:///{Path(file).absolute()}")
        found = self.client.get_experiment_by_name(experiment)
        assert found
        self.records: list[Any] = list(self.client.search_runs([found.experiment_id]))

    def history(self, record: Any, column: str) -> list[tuple[int, float]]:
        found = self.client.get_metric_history(record.info.run_id, column)
        return sorted((metric.step, metric.value) for metric in found)

    def check_metrics(self, record: Any, run: Path | str = "a") -> None:
        """Every column of metrics.csv reads back to the same bits."""
        for column in rows(run)[0]:
            expected = [(int(row["epoch"]), row[column]) for row in rows(run)]
            assert self.history(record, column) == expected, column


@pytest.mark.figures
def test_what_is_written_is_read_back(run: Run, tmp_path: Path) -> None:
    assert run("run_dir=a", "tracker=mlflow", "name=first", "tags=[x,y]") == 0
    store = Store()
    [record] = store.records
    store.check_metrics(record)
    assert record.info.status == "FINISHED"
    assert record.info.run_name == "first"
    assert record.data.tags["tags"] == "x, y"
    assert record.data.tags["run_dir"] == str(tmp_path / "a")
    assert record.data.tags["commit"] == status("a")["origin"]["commit"]
    parameters = record.data.params
    assert (parameters["optimizer.lr"], parameters["optimizer.name"]) == ("0.01", "adam")
    assert json.loads(parameters["model.layers"])[0] == {"conv2d": {"out_channels": 4, "kernel_size": 3}}
    summary = json.loads(Path("a/summary.json").read_text())
    assert record.data.metrics["summary/test/accuracy"] == summary["test"]["test/accuracy"]
    assert record.data.metrics["summary/steps"] == summary["steps"]
    artifacts = [file.path for file in store.client.list_artifacts(record.info.run_id, "figures")]
    assert artifacts == [f"figures/{file.name}" for file in sorted(Path("a/figures").iterdir())]
    assert Path(record.info.artifact_uri.removeprefix("file://")).is_relative_to(tmp_path / "mlruns")


def test_places_of_its_own(run: Run, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    uri = f"sqlite:///{tmp_path}/b/x.db"
    assert run("run_dir=a", "epochs=1", f"tracker={{mlflow:{{tracking_uri:'{uri}',experiment:small/digits}}}}") == 0
    assert len(Store("b/x.db", "small/digits").records) == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b"]
    assert (tmp_path / "b/mlruns/small_digits").is_dir()


def test_the_environment_names_a_place(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///env.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    assert run("run_dir=a", "epochs=1", "tracker=mlflow") == 0
    assert len(Store("env.db", "mine").records) == 1


def test_a_resumed_run_goes_on_with_its_record(ready: None, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_and_resume(run, monkeypatch, "tracker=mlflow", "patience=7")
    store = Store()
    [record] = store.records
    store.check_metrics(record)
    assert record.info.status == "FINISHED"
    assert record.data.params["patience"] == "null"
    assert record.data.tags["resumed.patience"] == "7"


def test_a_stopped_run_is_killed_in_its_words(ready: None, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_at(11, monkeypatch)
    assert run("run_dir=a", "tracker=mlflow") == 143
    assert Store().records[0].info.status == "KILLED"


def test_a_run_that_fails(ready: None, run: Run) -> None:
    assert run("run_dir=a", "optimizer=sgd", "optimizer.lr=1e30", "tracker=mlflow") == 1
    assert Store().records[0].info.status == "FAILED"


def test_a_killed_run_has_each_row_once(ready: None, striped: Path, run: Run, tmp_path: Path) -> None:
    kill_and_resume(striped, tmp_path, "tracker=mlflow")
    store = Store()
    [record] = store.records
    store.check_metrics(record)


def test_runs_at_the_same_time_share_a_file(striped: Path, run: Run, tmp_path: Path) -> None:
    """Which none of them finds: one makes it."""
    names = ["a", "b", "c", "d"]
    processes = [start(striped, tmp_path, f"run_dir={name}", "epochs=5", "tracker=mlflow") for name in names]
    assert [process.wait() for process in processes] == [0] * len(names)
    store = Store()
    assert len(store.records) == len(names)
    for record in store.records:
        store.check_metrics(record, Path(record.data.tags["run_dir"]))
        assert record.info.status == "FINISHED"


def test_a_file_that_is_not_finished_has_no_name(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that is stopped before MLflow has made its file leaves none that is half made."""
    monkeypatch.setattr(process, "HURRIED_SECONDS", 0.1)
    with monkeypatch.context() as patch:
        stop_at(3, patch)
        assert run("run_dir=a", "tracker=mlflow") == 143
    assert warnings(capsys.readouterr().err) == [
        "the tracker mlflow failed and is off: not finished 0.1 seconds after the end of the run"
    ]
    assert not Path("mlflow.db").exists()
    assert train.main(["resume=a"]) == 0
    store = Store()
    store.check_metrics(store.records[0])


def test_a_full_disk(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    limit_files(monkeypatch, 64)
    assert run("run_dir=a", "tracker=mlflow") == 0
    assert status("a")["state"] == "done"
    [warning] = warnings(capsys.readouterr().err)
    assert warning.startswith("the tracker mlflow failed and is off: ")
    assert warnings(Path("a/run.log").read_text()) == [warning]


def test_a_place_that_is_none(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("run_dir=a", "epochs=1", "tracker={mlflow:{tracking_uri:'sqlite:////dev/null/x.db'}}") == 0
    [warning] = warnings(capsys.readouterr().err)
    assert warning.startswith("the tracker mlflow failed and is off: ")
