"""What is in the file that `wandb sync` uploads. Nothing here needs a network or an account."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runners.trackers.wandb import records
from tests.optional import needs
from tests.runners.conftest import Run
from tests.runners.outcomes import status
from tests.runners.trackers.libraries import kill_and_resume, limit_files, rows, stop_and_resume
from tests.runners.trackers.test_failures import warnings

needs("wandb", extra="wandb")
pytestmark = [pytest.mark.optional, pytest.mark.filterwarnings("default::DeprecationWarning")]


def read(run: str = "a") -> list[Any]:
    """The messages of the only file of a run."""
    [file] = Path(run, "wandb").glob("offline-run-*/*.wandb")
    return list(records(file))


def history(run: str = "a") -> list[dict[str, Any]]:
    found = [record.history for record in read(run) if record.WhichOneof("record_type") == "history"]
    return [{"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in one.item} for one in found]


def summary(run: str = "a") -> dict[str, Any]:
    found = [record.summary for record in read(run) if record.WhichOneof("record_type") == "summary"]
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for one in found for item in one.update}


def check_history(run: str = "a") -> None:
    """Every column of metrics.csv reads back to the same bits, at steps that are epochs."""
    found = history(run)
    assert [{name: row[name] for name in row if not name.startswith("_")} for row in found] == rows(run)
    assert [row["_step"] for row in found] == [row["epoch"] for row in rows(run)]


@pytest.mark.figures
def test_what_is_written_is_read_back(run: Run) -> None:
    assert run("run_dir=a", "tracker=wandb", "name=first", "tags=[x,y]") == 0
    check_history()
    [begin] = [record.run for record in read() if record.WhichOneof("record_type") == "run"]
    assert (begin.display_name, list(begin.tags), begin.project) == ("first", ["x", "y"], "cnn-from-scratch")
    assert begin.run_id == status("a")["tracked_as"]
    config = {item.key: json.loads(item.value_json) for item in begin.config.update}
    assert config["optimizer.lr"] == 0.01
    assert config["model.layers"][0] == {"conv2d": {"out_channels": 4, "kernel_size": 3}}
    assert config["run"]["commit"] == status("a")["origin"]["commit"]
    saved = json.loads(Path("a/summary.json").read_text())
    assert summary()["summary/test/accuracy"] == saved["test"]["test/accuracy"]
    pictures = {file.name.partition("_summary_")[0] for file in Path("a/wandb").rglob("media/images/figures/*.png")}
    assert pictures == {file.stem for file in Path("a/figures").glob("*.png")}
    [end] = [record.exit for record in read() if record.WhichOneof("record_type") == "exit"]
    assert end.exit_code == 0


def test_a_resumed_run_has_each_row_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_and_resume(run, monkeypatch, "tracker=wandb")
    check_history()


def test_a_killed_run_has_each_row_once(striped: Path, run: Run, tmp_path: Path) -> None:
    kill_and_resume(striped, tmp_path, "tracker=wandb")
    check_history()


def test_a_run_that_fails(run: Run) -> None:
    assert run("run_dir=a", "optimizer=sgd", "optimizer.lr=1e30", "tracker=wandb") == 1
    [end] = [record.exit for record in read() if record.WhichOneof("record_type") == "exit"]
    assert end.exit_code == 1


def test_it_neither_prints_nor_asks(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    """Online without an account it fails, at once, with a warning."""
    assert run("run_dir=a", "epochs=1", "tracker=wandb") == 0
    assert "wandb" not in capfd.readouterr().err
    assert run("run_dir=b", "epochs=1", "tracker={wandb:{mode:online}}") == 0
    assert len(warnings(capfd.readouterr().err)) == 1
    assert status("b")["state"] == "done"


@pytest.mark.parametrize("kilobytes", [2, 8, 32])
def test_a_full_disk(
    kilobytes: int, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    limit_files(monkeypatch, kilobytes)
    assert run("run_dir=a", "epochs=40", "tracker=wandb") == 0
    assert status("a")["state"] == "done"
    [warning] = warnings(capsys.readouterr().err)
    assert warning.startswith("the tracker wandb failed and is off: ")
