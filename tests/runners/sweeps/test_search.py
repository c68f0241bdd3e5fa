"""hydra/sweeper=optuna: what it asks, what it is given, how it goes on, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.config_store import ConfigStore

from runners.cli import train
from runners.sweeps.pool import Pool
from runners.sweeps.search import Search
from runners.sweeps.search_settings import ENDING
from tests.runners.conftest import Run
from tests.runners.sweeps.searches import LR, SEARCH, new_runs, states, trials
from tests.runners.sweeps.statuses import statuses
from tests.runners.sweeps.test_sweep import UNLUCKY, failing

pytestmark = pytest.mark.optional


def test_a_search(run: Run, commands: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    """Optuna reads its journal; the jobs read the same numbers."""
    asked = ["hydra.sweeper.n_trials=4", LR, "optimizer=sgd,adam", "jobs=2"]
    assert run(*SEARCH, *asked) == 0
    assert states() == ["COMPLETE"] * 4
    for trial in trials():
        summary = json.loads(Path(f"swept/{trial.number}/summary.json").read_text())
        assert trial.value == summary["best"]["val/accuracy"]
        config = yaml.safe_load(Path(f"swept/{trial.number}/config.yaml").read_text())
        assert config["optimizer"]["lr"] == trial.params["optimizer.lr"]
        assert config["optimizer"]["name"] == trial.params["optimizer"]
    best = max(trials(), key=lambda trial: trial.value)
    out = capsys.readouterr().out.splitlines()
    lr, name = best.params["optimizer.lr"], best.params["optimizer"]
    accuracy = f"val accuracy {best.value:.2%}"
    assert out[-3] == "4 trials: 4 complete"
    assert out[-2] == f"best: job {best.number}, {accuracy}: optimizer.lr={lr} optimizer={name}"
    assert yaml.safe_load(Path("swept/best.yaml").read_text())[0]["job"] == best.number
    assert new_runs(commands) == ["swept/0", "swept/1", "swept/2", "swept/3"]
    assert "epochs=1" in commands[-1]
    commands.clear()
    assert run(*SEARCH, *asked) == 0
    assert commands == []


def interrupted(run: Run, monkeypatch: pytest.MonkeyPatch, *given: str) -> int:
    """A search that gets a signal while its third job trains."""
    sound = Pool._start

    def start(pool: Pool, *arguments: Any) -> None:
        sound(pool, *arguments)
        if Path("swept/2/metrics.csv").exists():
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Pool, "_start", start)
        return run(*SEARCH, *given)


SLOW = [f"extensions=[{UNLUCKY}]", "model.layers=[flatten,{slow:{seconds:0.004}},{linear:{out_features:3}}]"]


LONG = [pytest.param(name, marks=pytest.mark.long) for name in ("random", "grid", "qmc", "nsgaii", "brute_force")]


@pytest.mark.parametrize("sampler", ["{tpe:{n_startup_trials:2}}", *LONG])
def test_a_search_that_goes_on_asks_what_it_would_have_asked(
    sampler: str, run: Run, monkeypatch: pytest.MonkeyPatch, commands: list[list[str]]
) -> None:
    space = "optimizer.lr=0.1,0.01,0.001" if sampler in ENDING else LR
    asked = [*SLOW, "epochs=3", "capture=false", "seed=3,4", space, f"hydra.sweeper.sampler={sampler}"]
    asked += [f"hydra.sweeper.n_trials={6 if sampler in ENDING else 5}", "hydra.sweeper.seed=1"]
    assert interrupted(run, monkeypatch, *asked) == 130
    assert states() == ["COMPLETE", "COMPLETE", "RUNNING"]
    commands.clear()
    assert train.main(["-m", "resume=swept", SLOW[0]]) == 0
    assert commands[0][0] == "resume=swept/2"
    assert new_runs(commands[1:])[:2] == ["swept/3", "swept/4"]
    assert run(*[text.replace("swept", "whole") for text in SEARCH], *asked) == 0
    assert [trial.params for trial in trials()] == [trial.params for trial in trials("whole")]
    assert [trial.values for trial in trials()] == [trial.values for trial in trials("whole")]
    if sampler in ENDING:
        assert len({str(trial.params) for trial in trials()}) == 6


def test_what_a_kill_leaves_between_a_job_and_its_study(
    run: Run, monkeypatch: pytest.MonkeyPatch, commands: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """A trial that was asked and not started is started; one whose job is done gets its result."""
    asked = [*SEARCH, LR, "hydra.sweeper.n_trials=3"]
    assert run(*asked[:-1], "hydra.sweeper.n_trials=1") == 0
    with monkeypatch.context() as patch:
        patch.setattr(Pool, "run", lambda pool, jobs: None)
        assert run(*asked) == 0
    assert states() == ["COMPLETE", "RUNNING"]
    before = trials()[1].params
    with monkeypatch.context() as patch:
        patch.setattr(Search, "_settle", lambda search, number: False)
        assert run(*asked) == 0
    assert states() == ["COMPLETE", "RUNNING", "RUNNING"]
    assert len(commands) == 3
    capsys.readouterr()
    assert run(*asked) == 0
    assert len(commands) == 3
    assert states() == ["COMPLETE"] * 3
    assert trials()[1].params == before
    assert "note: 3 of 3 trials have ended, 0 are new" in capsys.readouterr().err


def test_another_launcher_gets_batches(run: Run, monkeypatch: pytest.MonkeyPatch, commands: list[list[str]]) -> None:
    """Whose jobs have the numbers of their trials, also those that go on, which don't follow each other."""
    store = ConfigStore.instance()
    target = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
    store.store(group="hydra/launcher", name="other", node={"_target_": target}, provider="test")
    asked = [*SEARCH, "hydra/launcher=other", "hydra.sweeper.n_jobs=2", "seed=1,2"]
    sound = Search._settle

    def settle(search: Search, number: int) -> bool:
        return number in (1, 3) and sound(search, number)

    with monkeypatch.context() as patch:
        patch.setattr(Search, "_settle", settle)
        assert run(*asked, "hydra.sweeper.n_trials=5") == 0
    assert states() == ["RUNNING", "COMPLETE", "RUNNING", "COMPLETE", "RUNNING"]
    assert new_runs(commands) == [f"swept/{number}" for number in range(5)]
    shutil.rmtree("swept/2")
    shutil.rmtree("swept/4")
    commands.clear()
    assert run(*asked, "hydra.sweeper.n_trials=6") == 0
    assert states() == ["COMPLETE"] * 6
    assert new_runs(commands) == ["swept/2", "swept/4", "swept/5"]
    for trial in trials():
        assert yaml.safe_load(Path(f"swept/{trial.number}/config.yaml").read_text())["seed"] == int(
            trial.params["seed"]
        )


def test_a_search_on_a_terminal(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Jobs that are asked while others run have bars, too."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert run(*SEARCH, "seed=range(100)", "hydra.sweeper.n_trials=3") == 0
    lines = [line.strip() for line in re.split(r"[\r\n]", capsys.readouterr().err)]
    for trial in trials():
        shown = [line for line in lines if line.endswith("%") and f"seed={trial.params['seed']}  val accuracy" in line]
        assert shown


def test_more_trials(run: Run, commands: list[list[str]]) -> None:
    assert run(*SEARCH, LR, "hydra.sweeper.n_trials=1") == 0
    assert train.main(["-m", "resume=swept", "hydra.sweeper.n_trials=2"]) == 0
    assert states() == ["COMPLETE"] * 2
    assert len(commands) == 2


def test_pruned_jobs(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """They end as pruned, tested with their best weights, and no error."""
    prune = "hydra.sweeper.pruner={threshold:{lower:2,n_warmup_steps:2}}"
    assert run(*SEARCH, LR, "epochs=4", prune, "hydra.sweeper.n_trials=2") == 0
    assert states() == ["PRUNED"] * 2
    for trial in trials():
        run_dir = Path(f"swept/{trial.number}")
        assert sorted(trial.intermediate_values) == [1, 2]
        summary = json.loads((run_dir / "summary.json").read_text())
        assert summary["stopped_early"]
        assert trial.intermediate_values[2] == summary["final"]["val/accuracy"]
        assert (run_dir / "checkpoints/best.pkl").exists()
        status = json.loads((run_dir / "status.json").read_text())
        value = f"{trial.intermediate_values[2]:.6g}"
        assert (status["state"], status["reason"]) == ("pruned", f"pruned after epoch 2 with val/accuracy {value}")
    out = capsys.readouterr().out.splitlines()
    assert out[1].split("  ")[-1].startswith("pruned: val accuracy ")
    assert out[-2] == "2 trials: 2 pruned"
    assert train.main(["resume=swept/0"]) == 0  # it can be trained to its end
    assert statuses("swept")["0"] == ("done", None)


def test_several_objectives(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    objectives = "hydra.sweeper.objectives=[val/loss,parameters]"
    model = "model.layers=[{conv2d:{out_channels:${model.width},kernel_size:3}},flatten,{linear:{out_features:3}}]"
    asked = [model, "model.width=range(1,9)", objectives, "hydra.sweeper.sampler={nsgaii:{population_size:2}}"]
    assert run(*SEARCH, *asked, "hydra.sweeper.n_trials=4", "jobs=2") == 0
    assert [trial.values[1] for trial in trials()] == [
        trial.params["model.width"] * (9 + 1 + 64 * 3) + 3 for trial in trials()
    ]
    out = capsys.readouterr().out
    assert "best: job" in out
    assert ", parameters " in out
    assert run(*SEARCH, *asked[:2], "hydra.sweeper.n_trials=4") == 2
    kept = "a search keeps its objectives, which are val/loss, parameters"
    assert f"error: hydra.sweeper.objectives: {kept}" in capsys.readouterr().err


def test_trials_that_fail(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*SEARCH, *failing("bad"), "seed=range(100)", "hydra.sweeper.n_trials=20") == 1
    assert states() == ["FAIL"] * 5
    assert "error: hydra/sweeper: all 5 new trials have failed, the search ends\n" in capsys.readouterr().err
    assert run(*SEARCH[:2], *failing("fine"), "sweep_dir=other", "seed=1,-1", "hydra.sweeper.n_trials=4") == 2
    assert set(states("other")) == {"COMPLETE", "FAIL"}


def test_a_trial_that_diverges_is_no_failure_of_the_search(run: Run) -> None:
    rates = ["optimizer=sgd", "optimizer.lr=0.01,1e30", "epochs=2", "hydra.sweeper.n_trials=6"]
    assert run(*SEARCH, *rates, "hydra.sweeper.sampler=random") == 0
    assert set(states()) == {"COMPLETE", "FAIL"}


def test_a_failure_can_stop_a_search(run: Run) -> None:
    assert run(*SEARCH, *failing("bad"), "seed=range(100)", "stop_on_failure=true") == 1
    assert states() == ["FAIL"]


def test_a_search_in_a_file(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """It chooses the sweeper and gives the space; overrides of the same key win."""
    Path("configs/experiment").mkdir(parents=True)
    Path("configs/experiment/mine.yaml").write_text(
        "# @package _global_\n"
        "defaults:\n"
        "  - override /hydra/sweeper: optuna\n"
        "hydra:\n"
        "  sweeper:\n"
        "    n_trials: 2\n"
        "    sampler: {tpe: {n_startup_trials: 1}}\n"
        "    params:\n"
        "      optimizer.lr: tag(log, interval(1e-4, 1e-1))\n"
        "      optimizer: choice(sgd, adam)\n"
        "      seed: choice(1, 2)\n"
    )
    assert run("-m", "experiment=mine", "epochs=1", "sweep_dir=swept", "seed=3") == 0
    assert states() == ["COMPLETE"] * 2
    assert all(trial.params.keys() == {"optimizer.lr", "optimizer"} for trial in trials())
    config = yaml.safe_load(Path("swept/1/config.yaml").read_text())
    assert (config["seed"], config["optimizer"]["lr"]) == (3, trials()[1].params["optimizer.lr"])
    assert config["optimizer"]["name"] == trials()[1].params["optimizer"]
