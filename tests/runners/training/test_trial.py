"""A job of a search: what it reports to the study, and when it is pruned."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from runners.training import study, trial
from runners.training.progress import Progress
from tests.optional import needs

needs("optuna", "cmaes", extra="search")
pytestmark = pytest.mark.optional
optuna = study.optuna()


def search(folder: Path, pruner: object) -> Any:
    """A study in a sweep's directory, with two trials: the first is complete, with 0.9 after each of three epochs."""
    content = {"objectives": ["val/accuracy"], "pruner": pruner}
    (folder / study.SEARCH).write_text(yaml.safe_dump(content))
    kept = study.storage(study.Journal(folder / study.JOURNAL))
    made = optuna.create_study(study_name=study.NAME, storage=kept, direction="maximize")
    first = made.ask()
    for epoch in (1, 2, 3):
        first.report(0.9, epoch)
    made.tell(first, 0.9)
    made.ask()
    return made


def progress(*values: float | None) -> Progress:
    """After epochs with these accuracies; None: not measured."""
    made = Progress("val/accuracy", higher_is_better=True)
    for epoch, value in enumerate(values, start=1):
        made.finish_epoch({"epoch": epoch, "step": epoch} | ({} if value is None else {"val/accuracy": value}))
    return made


MEDIAN = {"median": {"n_startup_trials": 1, "n_warmup_steps": 2}}


def test_epochs_are_reported_once(tmp_path: Path) -> None:
    """Also those after which the run was killed before it could; an epoch without the objective isn't."""
    made = search(tmp_path, MEDIAN)
    (listener,) = trial.listeners(tmp_path / "1", epochs=9)
    assert listener.begin(progress()) is None
    assert listener.epoch({}, progress(0.5)) is None
    (again,) = trial.listeners(tmp_path / "1", epochs=9)
    assert again.begin(progress(0.7, None)) is None
    assert again.begin(progress(0.7, None, 0.95)) is None
    assert made.trials[1].intermediate_values == {1: 0.5, 3: 0.95}


def test_a_verdict_holds_after_a_kill(tmp_path: Path) -> None:
    halving = {"successive_halving": {"min_resource": 1, "reduction_factor": 2}}
    search(tmp_path, halving)
    assert trial.listeners(tmp_path / "0", epochs=9) == []  # this trial is over
    made = study.load(study.storage(study.Journal(tmp_path / study.JOURNAL)))
    for value in (0.9, 0.8):
        other = made.ask()
        (listener,) = trial.listeners(tmp_path / str(other.number), epochs=9)
        listener.epoch({}, progress(value))
    (listener,) = trial.listeners(tmp_path / "1", epochs=9)
    reason = "pruned after epoch 1 with val/accuracy 0.1"
    assert listener.epoch({}, progress(0.1)) == reason
    (again,) = trial.listeners(tmp_path / "1", epochs=9)
    assert again.begin(progress(0.1)) == reason


def test_the_last_epoch_is_never_pruned(tmp_path: Path) -> None:
    search(tmp_path, MEDIAN)
    (listener,) = trial.listeners(tmp_path / "1", epochs=3)
    assert listener.epoch({}, progress(0.1)) is None
    assert listener.epoch({}, progress(0.1, 0.1, 0.1)) is None
    (longer,) = trial.listeners(tmp_path / "1", epochs=4)
    assert longer.begin(progress(0.1, 0.1, 0.1)) is None  # what was reported isn't judged again


def test_runs_that_are_no_jobs_of_a_pruning_search(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert trial.listeners(tmp_path / "1", epochs=3) == []
    search(tmp_path, None)
    assert trial.listeners(tmp_path / "1", epochs=3) == []
    (tmp_path / study.SEARCH).write_text(yaml.safe_dump({"objectives": ["val/accuracy"], "pruner": "median"}))
    assert trial.listeners(tmp_path / "run", epochs=3) == []
    assert len(trial.listeners(tmp_path / "1", epochs=3)) == 1
    assert caplog.messages == []
    with caplog.at_level(logging.WARNING):
        assert trial.listeners(tmp_path / "7", epochs=3) == []
        (tmp_path / study.SEARCH).write_text("[")
        assert trial.listeners(tmp_path / "1", epochs=3) == []
    assert [message.partition(" search: ")[0].rpartition("this run ")[2] for message in caplog.messages] == [
        "can't report to its",
        "can't report to its",
    ]


@pytest.mark.parametrize("name", study.PRUNERS)
def test_pruners_by_name(name: str) -> None:
    needed = {"patient": {"patience": 2, "pruner": "median"}, "percentile": {"percentile": 25.0}}
    arguments = needed.get(name, {"lower": 0.1} if name == "threshold" else {})
    assert type(study.pruner({name: arguments})).__name__ == study.PRUNERS[name]
