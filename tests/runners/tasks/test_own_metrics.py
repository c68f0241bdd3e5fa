"""What is said of the metrics of a task of a user's own when they are missing or no numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from runners.config import extensions
from runners.tasks.registry import TASKS
from tests.runners.config.own_files import FILES, TASK, forget
from tests.runners.conftest import Run


@pytest.fixture(autouse=True)
def loaded() -> Iterator[None]:
    extensions.load(str(FILES / "brightness.py"))
    yield
    forget()


def test_a_metric_of_the_whole_set_that_is_no_number_is_named(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TASKS["brightness"], "set_metrics", lambda self, outputs, epoch: {"spread": math.nan})
    assert run("run_dir=a", *TASK) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: the run failed: val/spread isn't finite in the validation after epoch 1; ")


def test_a_monitor_that_was_never_measured(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TASKS["brightness"], "monitor", "val/spread")
    monkeypatch.setattr(TASKS["brightness"], "set_metrics", lambda self, outputs, epoch: {})
    assert run("run_dir=a", "epochs=1", *TASK) == 0
    assert "with the weights of epoch 1 (val spread not measured, so the last)" in capsys.readouterr().out
