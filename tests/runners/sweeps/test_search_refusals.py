"""What a search refuses, in one line and before anything is written, and what it says of changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runners.conftest import Run
from tests.runners.sweeps.searches import LR, SEARCH, states

pytestmark = pytest.mark.optional


def test_a_changed_space(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*SEARCH, LR, "seed=1,2", "hydra.sweeper.n_trials=1") == 0
    capsys.readouterr()
    assert run(*SEARCH, "optimizer.lr=interval(1e-4,1e-1)", "seed=1,3", "hydra.sweeper.n_trials=1") == 2
    problem = "a search can change the ends of a range, but not its kind or choices, give another sweep_dir"
    assert capsys.readouterr().err.splitlines() == [f"error: optimizer.lr: {problem}", f"error: seed: {problem}"]
    wider = "optimizer.lr=tag(log,interval(1e-4,1))"
    assert run(*SEARCH, wider, "seed=1,2", "hydra.sweeper.seed=5", "batch_size=8", "hydra.sweeper.n_trials=2") == 0
    warning = "warning: this differs from what the earlier trials were asked with: "
    assert f"{warning}optimizer.lr, batch_size, hydra.sweeper.seed\n" in capsys.readouterr().err
    assert states() == ["COMPLETE"] * 2


def test_the_directory_of_a_grid(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-m", "seed=1,2", "epochs=1", "sweep_dir=swept") == 0
    capsys.readouterr()
    assert run(*SEARCH, LR) == 2
    assert capsys.readouterr().err == "error: sweep_dir: swept has the jobs of a grid, choose another\n"


def test_an_objective_that_a_job_lacks(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["hydra.sweeper.objectives=[paramters]", "hydra.sweeper.directions=minimize", "hydra.sweeper.n_trials=2"]
    assert run(*SEARCH, LR, *given) == 2
    assert (
        "error: hydra.sweeper.objectives: job 0 has no paramters, did you mean parameters?" in capsys.readouterr().err
    )
    assert states() == ["RUNNING"]


SWEEPER = "hydra.sweeper."
REFUSED = {
    "sampler={tpe:{n_startup_trial:5}}": "sampler.tpe.n_startup_trial: unknown, did you mean n_startup_trials?",
    "sampler={tpe:{n_startup_trials:x}}": "sampler.tpe.n_startup_trials: 'x' is not allowed, give a whole number",
    "sampler={tpe:{seed:1}}": "sampler.tpe.seed: unknown",
    "sampler=grid": "sampler: grid goes through every value, of which optimizer.lr has no end",
    "pruner={percentile:{percentile:200}}": "pruner.percentile: ",
    "pruner=percentile": "pruner.percentile.percentile: missing, give a number",
    "pruner={patient:{patience:1,pruner:medin}}": "pruner.patient.pruner: unknown 'medin', did you mean median?",
    "objectives=val/acuracy": "objectives: unknown val/acuracy, did you mean val/accuracy?",
    "objectives=[lr]": "objectives: unknown lr, ",
    "n_jobs=2": "n_jobs: is for other launchers, give jobs=N with hydra/launcher=local",
}


@pytest.mark.parametrize("given", REFUSED)
def test_what_is_refused(given: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*SEARCH, LR, SWEEPER + given) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {SWEEPER}{REFUSED[given]}")
    assert len(err.splitlines()) == 1
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("debug=summary", "debug: summary prints a report and trains nothing that can be compared"),
        ("task.name=none", "task.name: unknown none, known: "),
    ],
)
def test_configs_that_are_refused(given: str, problem: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*SEARCH, LR, given) == 2
    assert capsys.readouterr().err.startswith(f"error: {problem}")
    assert list(Path().iterdir()) == []


def test_a_pruner_needs_an_objective_of_each_epoch(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*SEARCH, LR, "hydra.sweeper.pruner=median", "hydra.sweeper.objectives=test/loss") == 2
    assert capsys.readouterr().err.startswith("error: hydra.sweeper.pruner: test/loss isn't measured after each epoch")
