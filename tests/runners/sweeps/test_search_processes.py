"""Whole searches: killed ones go on and ask what they would have asked, and what they find is worth it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from runners.cli import train
from runners.sweeps.pool import Pool
from tests.forks import ROOT
from tests.runners.sweeps.searches import LR, states, trials
from tests.runners.sweeps.test_sweep import UNLUCKY
from tools.small_runs import outcome

pytestmark = pytest.mark.optional

EXTENSION = f"extensions=[{UNLUCKY}]"
SLOW = "model.layers=[flatten,{slow:{seconds:0.02}},{linear:{out_features:3}}]"
PRUNER = "hydra.sweeper.pruner={median:{n_startup_trials:2}}"
LIMIT = 120
"""Seconds until something is wrong."""


def command(*arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "run.py"), "-m", *arguments]


@pytest.mark.long
@pytest.mark.parametrize("sampler", ["{tpe:{n_startup_trials:2}}", "random"])
def test_a_killed_search(sampler: str, striped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ["hydra/sweeper=optuna", f"hydra.sweeper.sampler={sampler}", "hydra.sweeper.n_trials=5", PRUNER, LR]
    asked += ["data=idx", f"data.path={striped}", "data.val_examples=30", "epochs=4", "batch_size=16", "threads=1"]
    asked += [EXTENSION, SLOW, "capture=false"]
    parent = subprocess.Popen(command(*asked, "sweep_dir=swept"))
    deadline = time.monotonic() + LIMIT
    while not Path("swept/2/metrics.csv").exists():
        assert time.monotonic() < deadline
        assert parent.poll() is None
        time.sleep(0.02)
    parent.kill()
    with suppress(ProcessLookupError):
        os.kill(json.loads(Path("swept/2/status.json").read_text())["pid"], signal.SIGKILL)
    parent.wait()
    assert states()[2] == "RUNNING"
    subprocess.run(command("resume=swept", EXTENSION), check=True, timeout=LIMIT)
    subprocess.run(command(*asked, "sweep_dir=whole"), check=True, timeout=LIMIT)
    assert len(states()) == 5
    for one, other in zip(trials(), trials("whole"), strict=True):
        assert (one.state, one.params, one.values) == (other.state, other.params, other.values)
        assert one.intermediate_values == other.intermediate_values
        assert outcome(f"swept/{one.number}") == outcome(f"whole/{one.number}")


@pytest.mark.long
def test_a_search_beats_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """24 trials with pruning, interrupted in the middle, against the default experiment with as many epochs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["run.py"])
    common = ["data.num_examples=2000", "epochs=3", "threads=1"]
    assert train.main([*common, "run_dir=default"]) == 0
    pruner = "hydra.sweeper.pruner={median:{n_startup_trials:2,n_warmup_steps:2}}"
    asked = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=24", pruner, "jobs=2", LR]
    asked += ["optimizer=adam,sgd,rmsprop", "batch_size=8,16,32,64", "schedule=constant,exponential,one_cycle"]
    sound = Pool._start

    def start(pool: Pool, *arguments: Any) -> None:
        sound(pool, *arguments)
        if Path("swept/12").exists():
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Pool, "_start", start)
        assert train.main(["-m", *common, *asked, "sweep_dir=swept"]) == 130
    before = max(trial.value for trial in trials() if trial.state.name == "COMPLETE")
    assert "RUNNING" in states()
    assert train.main(["-m", "resume=swept"]) == 0
    assert len(states()) == 24
    assert set(states()) == {"COMPLETE", "PRUNED"}
    best = max(trial.value for trial in trials() if trial.state.name == "COMPLETE")
    default = json.loads(Path("default/summary.json").read_text())["best"]["val/accuracy"]
    assert best >= before > 0
    assert best > default
    print(f"default {default:.2%}, search {best:.2%}, {states().count('PRUNED')} pruned")
