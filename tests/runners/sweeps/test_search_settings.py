"""What is said of the settings of a search before anything else, with or without Optuna."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from cnn.faults import ConfigError
from runners import errors
from runners.sweeps import search_settings
from tests.runners.conftest import Run, faults

SEARCH = ["-m", "hydra/sweeper=optuna", "optimizer.lr=interval(0.1,1)"]
FAULTS: dict[str, list[str]] = {
    "n_trials=0": ["n_trials: 0 is not allowed, give a whole number >= 1"],
    "n_trial=1": ["n_trial: unknown, did you mean n_trials?"],
    "sampler=tpee": ["sampler: unknown 'tpee', did you mean tpe?"],
    "sampler={tpe:{},random:{}}": ["sampler: {'tpe': {}, 'random': {}} is not allowed, give a name, or {name: {"],
    "sampler={tpe:1}": ["sampler: "],
    "pruner=medin": ["pruner: unknown 'medin', did you mean median?"],
    "seed=-1": ["seed: -1 is not allowed"],
    "directions=up": ["directions: 'up' is not allowed, give one of minimize, maximize"],
    "directions=[minimize,maximize]": ["directions: 2 for 1 objectives, give one for each"],
    "objectives=[a,a]": ["objectives: one is given twice"],
}


@pytest.mark.parametrize("given", FAULTS)
def test_settings(given: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*SEARCH, f"hydra.sweeper.{given}") == 2
    found = [fault.removeprefix("hydra.sweeper.") for fault in faults(capsys)]
    assert [fault[: len(text)] for fault, text in zip(found, FAULTS[given], strict=True)] == FAULTS[given]


def test_several_faults_at_once() -> None:
    given: dict[str, Any] = {"sampler": "x", "pruner": "median", "objectives": ["a", "b"], "directions": ["minimize"]}
    with pytest.raises(ConfigError) as caught:
        search_settings.parse(given)
    assert [fault.place.rpartition(".")[2] for fault in caught.value.faults] == ["sampler", "directions", "pruner"]


def test_optuna_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert run(*SEARCH) == 2
    how = 'pip install -c constraints.txt -e ".[search]"'
    assert capsys.readouterr().err == f"error: hydra/sweeper: optuna is not installed: {how}\n"
    assert list(Path().iterdir()) == []
    assert run(*SEARCH, "sweep_dir=made/here") == 2
    assert list(Path().iterdir()) == []
    monkeypatch.setattr(errors, "IN_A_CHECKOUT", False)
    assert run(*SEARCH) == 2
    assert capsys.readouterr().err.endswith('optuna is not installed: pip install "cnn-from-scratch[search]"\n')
