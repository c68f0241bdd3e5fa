"""What of a run has to be the same in another one that computes the same; and how one is stopped and asked."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runners.files import checkpoint, metrics_csv
from runners.tasks.classification import Classification
from runners.tasks.task import Task

COLUMNS = [
    *("epoch", "step", "lr", "train/loss", "train/accuracy", "val/loss", "val/accuracy"),
    *("images_per_second", "seconds"),
]
"""Of the metrics.csv of a classifier."""


def without_times(value: Any) -> Any:
    """Everything that a run wrote but what depends on the clock; arrays as their bytes."""
    if isinstance(value, dict):
        timed = ("seconds", "step_seconds", "images_per_second", "run_dir")
        return {key: without_times(item) for key, item in value.items() if key not in timed}
    if isinstance(value, list):
        return [without_times(item) for item in value]
    return (value.dtype.name, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value


def outcome(run: str | Path) -> dict[str, Any]:
    """Rows, summary and checkpoints."""
    return {
        "rows": without_times(metrics_csv.read(Path(run, "metrics.csv"))),
        "summary": without_times(json.loads(Path(run, "summary.json").read_text())),
        **{
            which: without_times(checkpoint.load(Path(run, f"checkpoints/{which}.pkl")).model_dump())
            for which in ("last", "best")
        },
    }


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM, once, in the training step of this number."""
    stop_at_step_of(Classification, step, monkeypatch)


def stop_at_step_of(task: type[Task], step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sound, seen = task.train_step, 0

    def counted(*arguments: Any, **more: Any) -> None:
        nonlocal seen
        sound(*arguments, **more)
        seen += 1
        if seen == step:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(task, "train_step", counted)


def status(run: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(run, "status.json").read_text())
    return content
