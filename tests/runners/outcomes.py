"""What of a run has to be the same in another one that computes the same; and how one is stopped and asked."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from runners.tasks.classification import Classification
from runners.tasks.sums import Sums
from runners.tasks.task import Task
from runners.training.capturing import Steps

COLUMNS = [
    *("epoch", "step", "lr", "train/loss", "train/accuracy", "val/loss", "val/accuracy"),
    *("images_per_second", "seconds"),
]
"""Of the metrics.csv of a classifier."""


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM, once, in the training step of this number."""
    stop_at_step_of(Classification, step, monkeypatch)


def stop_at_step_of(task: type[Task], step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sound, seen = Steps.take, 0

    def counted(self: Steps, *arguments: Any) -> Sums:
        nonlocal seen
        sums = sound(self, *arguments)
        if isinstance(self.task, task):
            seen += 1
            if seen == step:
                os.kill(os.getpid(), signal.SIGTERM)
        return sums

    monkeypatch.setattr(Steps, "take", counted)


def status(run: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(run, "status.json").read_text())
    return content
