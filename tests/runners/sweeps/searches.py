"""The commands of searches, and what became of their trials. Importing this skips tests where Optuna is missing."""

from __future__ import annotations

from typing import Any

from runners.training import study
from tests.optional import needs

needs("optuna", extra="search")
optuna = study.optuna()

SEARCH = ["-m", "hydra/sweeper=optuna", "sweep_dir=swept", "epochs=1"]
LR = "optimizer.lr=tag(log,interval(1e-4,1e-1))"


def trials(sweep: str = "swept") -> list[Any]:
    """The trials of a search, as Optuna's own class reads its journal."""
    storage = optuna.storages
    backend = storage.journal.JournalFileBackend(f"{sweep}/study.log")
    found = optuna.load_study(study_name="search", storage=storage.JournalStorage(backend))
    return list(found.trials)


def new_runs(commands: list[list[str]]) -> list[str]:
    """The directories of jobs that were started and not resumed."""
    return [text.removeprefix("run_dir=") for command in commands for text in command if text.startswith("run_dir=")]


def states(sweep: str = "swept") -> list[str]:
    return [trial.state.name for trial in trials(sweep)]
