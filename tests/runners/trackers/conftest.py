from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runners.config import extensions
from runners.trackers.registry import TRACKERS

OWN = f"extensions=[{Path(__file__).parent / 'own_trackers.py'}]"
"""The argument that brings the trackers of these tests into a config."""


@pytest.fixture(autouse=True)
def usual_trackers(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The trackers of a user's own file are gone after a test, and nobody has an account or a server."""
    registries: list[dict[Any, Any]] = [TRACKERS, extensions._loaded, extensions._owners]
    before = [dict(registry) for registry in registries]
    for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))  # where logins are kept
    yield
    for registry, entries in zip(registries, before, strict=True):
        registry.clear()
        registry.update(entries)
