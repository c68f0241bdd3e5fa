"""Small runs of tasks that name no classes, and pictures to show them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.runners.small_tasks import KINDS, untrained


@pytest.fixture(scope="session")
def runs(striped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an untrained run of each kind, which nobody may change."""
    folder = tmp_path_factory.mktemp("runs")
    names: dict[str, Any] = {"source": {"class_names": ["across", "down", "neither"]}}
    for name, parts in KINDS.items():
        untrained(parts, striped, folder / name, **(names if name == "conditional" else {}))
    return folder


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["predict.py"])


@pytest.fixture
def painted(elsewhere: None) -> Path:
    """A folder of three pictures, one of them in a subfolder."""
    generator = np.random.default_rng(0)
    for name in ("a.png", "b.jpg", "more/a.png"):
        file = Path("painted", name)
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (10, 10), np.uint8)).save(file)
    return Path("painted")
