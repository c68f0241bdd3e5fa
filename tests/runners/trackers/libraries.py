"""What the tests of every library share: a run that is stopped and resumed, one that is killed, a disk that is full."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from runners.cli import train
from runners.files import metrics_csv
from runners.trackers import process
from tests.runners.conftest import Run
from tests.runners.outcomes import stop_at
from tools.small_runs import SMALL_MODEL

ROOT = Path(__file__).parents[3]


def rows(run: Path | str = "a") -> list[dict[str, float]]:
    return metrics_csv.read(Path(run, "metrics.csv"))


def stop_and_resume(run: Run, monkeypatch: pytest.MonkeyPatch, tracker: str, *more: str) -> None:
    """A run in `a` of three epochs, stopped in the second one and resumed."""
    with monkeypatch.context() as patch:
        stop_at(11, patch)
        assert run("run_dir=a", "epochs=3", "schedule=constant", tracker) == 143
    assert train.main(["resume=a", *more]) == 0
    assert len(rows()) == 3


def start(data: Path, folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """A small run in a process of its own."""
    small = ["data=idx", f"data.path={data}", "data.val_examples=30", SMALL_MODEL, "batch_size=16", "threads=1"]
    command = [sys.executable, str(ROOT / "run.py"), *small, *arguments]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill_and_resume(data: Path, folder: Path, tracker: str) -> None:
    """A run in `a`, killed within an epoch once it has finished two, and resumed for two more.

    Only the process that trains is killed; the tracker's process ends by itself.
    """
    with start(data, folder, "run_dir=a", "epochs=100000", "schedule=constant", tracker) as process:
        file = folder / "a/metrics.csv"
        while process.poll() is None and not (file.exists() and len(rows(folder / "a")) > 1):
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    done = len(rows(folder / "a"))
    assert train.main(["resume=a", f"epochs={done + 2}", "resume_changed=true"]) == 0
    assert len(rows(folder / "a")) >= done + 2


def limit_files(monkeypatch: pytest.MonkeyPatch, kilobytes: int) -> None:
    """Let no file that a tracker's process writes grow longer, as on a full disk."""
    whole = process.command()
    limited: Sequence[str] = ["bash", "-c", f'ulimit -f {kilobytes}; exec "$@"', "bash", *whole]
    monkeypatch.setattr(process, "command", lambda: limited)
