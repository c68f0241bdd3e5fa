"""Listeners: they hear of every step and epoch, may stop a run, and can't break one; nothing of the loop knows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runners.files import metrics_csv
from runners.training import experiment
from runners.training.progress import Progress
from runners.training.recorder import Console, Listener
from tests.runners.conftest import Run
from tools.small_runs import outcome


class Notes(Listener):
    """Writes down all that it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def begin(self, progress: Progress) -> None:
        self.heard.append(f"begin at {progress.step}")

    def step(self, progress: Progress) -> str | None:
        self.heard.append(f"step {progress.step}")
        return None

    def epoch(self, row: dict[str, float], progress: Progress) -> str | None:
        assert row is progress.rows[-1]
        assert len(metrics_csv.read(Path("a/metrics.csv"))) == len(progress.rows)  # the run's own files come first
        self.heard.append(f"epoch {row['epoch']}")
        return None

    def end(self) -> None:
        self.heard.append("end")


class Impatient(Notes):
    def epoch(self, row: dict[str, float], progress: Progress) -> str | None:
        super().epoch(row, progress)
        return "somebody has seen enough" if row["epoch"] == 2 else None


class Broken(Listener):
    calls = 0

    def step(self, progress: Progress) -> str | None:
        self.calls += 1
        raise OSError("no connection")

    def end(self) -> None:
        self.calls += 1


def listen(listeners: list[Listener], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a run use these beside its own."""
    monkeypatch.setattr(experiment, "listeners", lambda task, length, _: [Console(task, length), *listeners])


def test_a_second_listener_hears_everything(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = Notes()
    listen([notes], monkeypatch)
    assert run("run_dir=a", "epochs=2", "batch_size=40") == 0
    expected = ["begin at 0", *(f"step {n}" for n in (1, 2, 3)), "epoch 1", *(f"step {n}" for n in (4, 5, 6))]
    assert notes.heard == [*expected, "epoch 2", "end"]


def test_a_listener_stops_training_after_the_epoch(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = Impatient()
    listen([listener], monkeypatch)
    assert run("run_dir=a", "epochs=9") == 0
    assert listener.heard[-2:] == ["epoch 2", "end"]
    assert len(metrics_csv.read(Path("a/metrics.csv"))) == 2
    assert json.loads(Path("a/summary.json").read_text())["stopped_early"] is True
    assert "stopped early: somebody has seen enough" in Path("a/run.log").read_text()


def test_a_listener_that_fails_is_dropped_with_one_warning(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("run_dir=a") == 0
    expected: Any = outcome("a")
    notes = Notes()
    broken = Broken()
    listen([broken, notes], monkeypatch)
    Path("a").rename("before")
    assert run("run_dir=a") == 0
    assert outcome("a") == expected
    assert notes.heard[-1] == "end"
    assert broken.calls == 1
    assert Path("a/run.log").read_text().count("Broken failed and is disabled: no connection") == 1


def test_what_the_run_itself_cannot_write_ends_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = Notes()
    listen([notes], monkeypatch)

    def full(*_: object) -> None:
        if len(notes.heard) > 5:
            raise OSError(28, "No space left on device", "a/metrics.csv")

    monkeypatch.setattr(metrics_csv, "write", full)
    assert run("run_dir=a") == 1
    assert "No space left on device" in capsys.readouterr().err
    assert notes.heard[-1] == "end"


def test_a_run_names_its_monitor(run: Run) -> None:
    """For whoever compares runs, and from the first moment: a run that is still training has no summary."""
    assert run("run_dir=a", "epochs=1") == 0
    for file in ("status.json", "summary.json"):
        assert json.loads(Path("a", file).read_text())["monitor"] == {"column": "val/accuracy", "better": "higher"}
