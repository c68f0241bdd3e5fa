"""What a tracker is given, from the first start of a run to its end, over stops and resumes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from runners.cli import train
from runners.files import metrics_csv
from tests.runners.conftest import Run
from tests.runners.outcomes import status, stop_at
from tests.runners.trackers.conftest import OWN
from tools.small_runs import SMALL_MODEL

ROOT = Path(__file__).parents[3]


def heard(folder: str = "a") -> list[Any]:
    return [json.loads(line) for line in Path(folder, "notes.jsonl").read_text().splitlines()]


@pytest.mark.figures
def test_a_run_from_its_start_to_its_figures(run: Run, tmp_path: Path) -> None:
    assert run("run_dir=a", OWN, "tracker=notes", "name=first try", "tags=[x,y]") == 0
    (_, about, rows), *epochs, (_, summary, figures), last = heard()
    assert rows == []
    assert [row for _, row in epochs] == metrics_csv.read(Path("a/metrics.csv"))
    assert last == ["close", "done"]
    assert about["directory"] == str(tmp_path / "a")
    assert (about["name"], about["tags"], about["pid"]) == ("first try", ["x", "y"], os.getpid())
    assert about["config"]["optimizer.lr"] == 0.01
    assert about["config"]["tracker"] == "notes"
    assert about["facts"]["command"].startswith("python run.py ")
    saved = json.loads(Path("a/summary.json").read_text())
    assert summary["test/accuracy"] == saved["test"]["test/accuracy"]
    assert summary["best/val/accuracy"] == saved["best"]["val/accuracy"]
    assert summary["parameters"] == saved["parameters"]
    assert figures == [str(file) for file in sorted((tmp_path / "a/figures").iterdir())]


def test_a_run_without_a_name_is_called_by_its_directory(run: Run) -> None:
    assert run("run_dir=a", "epochs=1", OWN, "tracker=notes") == 0
    assert heard()[0][1]["name"] == "a"


def test_a_stop_and_a_resume(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        stop_at(11, patch)
        assert run("run_dir=a", "epochs=3", OWN, "tracker=notes") == 143
    assert [kind for kind, *_ in heard()] == ["start", "epoch", "close"]
    assert heard()[-1] == ["close", "interrupted"]
    assert train.main(["resume=a", OWN]) == 0
    later = heard()[3:]
    assert [kind for kind, *_ in later] == ["start", "epoch", "epoch", "finish", "close"]
    rows = metrics_csv.read(Path("a/metrics.csv"))
    assert later[0][2] == rows[:1]
    assert [later[1][1], later[2][1]] == rows[1:]
    assert later[0][1]["identity"] == heard()[0][1]["identity"] == status("a")["tracked_as"]


@pytest.mark.parametrize("added", ["tracker=notes", "tracker.notes.file=notes.jsonl"])
def test_a_resume_may_add_a_tracker_and_it_learns_everything(
    added: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_at(11, patch)
        assert run("run_dir=a", "epochs=3", OWN) == 143
    assert "tracked_as" not in status("a")
    if "." in added:
        assert train.main(["resume=a", OWN, "tracker={notes:{file:x.jsonl}}", added]) == 0
    else:
        assert train.main(["resume=a", OWN, added]) == 0
    rows = metrics_csv.read(Path("a/metrics.csv"))
    assert heard()[0][2] + [event[1] for event in heard() if event[0] == "epoch"] == rows


def test_a_resume_may_leave_a_tracker_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        stop_at(11, patch)
        assert run("run_dir=a", "epochs=3", OWN, "tracker={notes:{file:n.jsonl}}") == 143
    before = Path("a/n.jsonl").read_text()
    assert train.main(["resume=a", OWN, "tracker=null"]) == 0
    assert Path("a/n.jsonl").read_text() == before


def test_a_run_that_fails(run: Run) -> None:
    assert run("run_dir=a", "optimizer=sgd", "optimizer.lr=1e30", OWN, "tracker=notes") == 1
    assert heard()[-1] == ["close", "failed"]


def test_a_run_that_is_killed(striped: Path, tmp_path: Path) -> None:
    """Its tracker notices, closes as if the run were interrupted, and ends."""
    small = ["data=idx", f"data.path={striped}", "data.val_examples=30", SMALL_MODEL, "batch_size=16", "threads=1"]
    command = [sys.executable, str(ROOT / "run.py"), "run_dir=a", "epochs=100000", *small, OWN, "tracker=notes"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        notes = tmp_path / "a/notes.jsonl"
        while process.poll() is None and not (notes.exists() and '"epoch"' in notes.read_text()):
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    while '["close", "interrupted"]' not in notes.read_text():
        time.sleep(0.05)


def test_debug_fast_is_tracked_as_well(run: Run) -> None:
    assert run("run_dir=a", "debug=fast", OWN, "tracker=notes") == 0
    assert heard()[-1] == ["close", "done"]
