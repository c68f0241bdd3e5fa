"""A tracker that fails warns once, and the run ends as it would without it."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from runners.trackers import process
from runners.trackers.process import TrackerProcess
from tests.runners.conftest import Run
from tests.runners.outcomes import status, stop_at
from tests.runners.trackers.conftest import OWN
from tests.runners.trackers.own_trackers import Broken
from tools.small_runs import outcome

REASONS = {
    "full disk": "OSError: [Errno 28] No space left on device",
    "exit": "SystemExit: no license",
    "hard exit": "its process ended with exit code 3",
    "interrupt": "KeyboardInterrupt",
    "die": "its process ended with SIGSEGV",
    "two lines": r"RuntimeError: the first line\nthe second line\x1b[31m",
}


def broken(when: str, how: str) -> tuple[str, str]:
    return OWN, f"tracker={{broken:{{when:{when},how:{how}}}}}"


def warnings(text: str) -> list[str]:
    """The lines about trackers."""
    return [line.partition("warning: ")[2] for line in text.splitlines() if "tracker" in line and "warning: " in line]


@pytest.mark.parametrize("how", REASONS)
@pytest.mark.parametrize("when", ["start", "epoch", "finish", "close"])
def test_whatever_fails_the_run_is_done(when: str, how: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("run_dir=a", "epochs=1", *broken(when, how)) == 0
    assert status("a")["state"] == "done"
    expected = [f"the tracker broken failed and is off: {REASONS[how]}"]
    captured = capsys.readouterr()
    assert warnings(captured.err) == expected
    assert warnings(Path("a/run.log").read_text()) == expected
    assert "run directory a" in captured.out


def test_a_run_with_a_full_disk_computes_what_one_without_a_tracker_does(run: Run) -> None:
    assert run("run_dir=a") == 0
    expected: Any = outcome("a")
    Path("a").rename("before")
    assert run("run_dir=a", *broken("epoch", "full disk")) == 0
    found: Any = outcome("a")
    assert found["rows"] == expected["rows"]
    for which in ("last", "best"):
        assert found[which]["networks"] == expected[which]["networks"]


@pytest.mark.parametrize("when", ["start", "epoch", "close"])
def test_one_that_hangs_is_ended(
    when: str, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(process, "CLOSE_SECONDS", 0.5)
    assert run("run_dir=a", "epochs=1", *broken(when, "wait")) == 0
    assert status("a")["state"] == "done"
    reason = "not finished 0.5 seconds after the end of the run"
    assert warnings(capsys.readouterr().err) == [f"the tracker broken failed and is off: {reason}"]


def test_a_signal_does_not_wait_for_one_that_hangs(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run's state is saved first."""
    monkeypatch.setattr(process, "HURRIED_SECONDS", 0.5)
    stop_at(3, monkeypatch)
    assert run("run_dir=a", *broken("start", "wait")) == 143
    assert status("a")["state"] == "interrupted"
    assert "not finished 0.5 seconds after the end of the run" in warnings(capsys.readouterr().err)[0]


def test_one_that_hangs_never_holds_up_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that a pipe has no room for are kept."""
    monkeypatch.setattr(process, "CLOSE_SECONDS", 0.5)
    tracker = TrackerProcess(Broken("epoch", "wait"), {"when": "epoch", "how": "wait"})
    row = {f"column {number}": 0.1 for number in range(1000)}
    for _ in range(100):
        tracker.send({"do": "epoch", "row": row})
    assert tracker.failure is None
    tracker.close(lambda: False)
    assert tracker.failure is not None


def test_what_a_library_does_to_its_process_is_not_done_to_the_run(
    run: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It prints, replaces signal handlers, asks, and leaves threads and exit hooks that never end."""
    before = signal.getsignal(signal.SIGTERM)
    assert run("run_dir=a", "epochs=1", *broken("start", "annoy")) == 0
    captured = capfd.readouterr()
    assert "library" not in captured.out + captured.err
    assert "warning" not in captured.err
    assert signal.getsignal(signal.SIGTERM) is before
    stop_at(3, monkeypatch)
    assert run("run_dir=b", *broken("start", "annoy")) == 143


def test_the_others_go_on(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("run_dir=a", OWN, "tracker=[broken,notes]") == 0
    assert len(warnings(capsys.readouterr().err)) == 1
    heard = [json.loads(line)[0] for line in Path("a/notes.jsonl").read_text().splitlines()]
    assert heard == ["start", "epoch", "epoch", "finish", "close"]


def test_no_process_is_left(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    class Noted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            started.append(self)
            super().__init__(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", Noted)
    assert run("run_dir=a", "epochs=1", OWN, "tracker=[broken,notes]") == 0
    assert len(started) >= 2
    assert all(each.returncode is not None for each in started)


def test_a_process_that_cannot_be_started(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(process, "command", lambda: ["/nonexistent/python"])
    assert run("run_dir=a", "epochs=1", OWN, "tracker=notes") == 0
    reason = "FileNotFoundError: [Errno 2] No such file or directory: '/nonexistent/python'"
    assert warnings(capsys.readouterr().err) == [f"the tracker notes failed and is off: {reason}"]
