"""Every shipped config is built and trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cnn.losses import LOSSES
from cnn.optimizers import OPTIMIZERS
from cnn.schedules import SCHEDULES
from runners import commands, overrides, schema
from runners.data import SOURCES
from runners.tasks import TASKS
from tests.runners.conftest import write_dataset

IMAGE_MODELS = [name for name in overrides.choices("model") if name != "conv3d"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["run.py"])


BRIEF = ["epochs=1", "data.num_examples=64", "data.val_examples=64"]


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_models(name: str) -> None:
    assert commands.train([f"model={name}", "model.width=3", *BRIEF]) == 0


def test_conv3d(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "volumes", (8, 8, 8))
    data = ["data=idx", f"data.path={folder}", "model.classes=3", "data.num_examples=64", "data.val_examples=64"]
    assert commands.train(["model=conv3d", "epochs=1", *data]) == 0


@pytest.mark.parametrize(
    "choice",
    [
        f"{group}={name}"
        for group in ("augment", "optimizer", "loss", "schedule", "task")
        for name in overrides.choices(group)
    ],
)
def test_choices(choice: str) -> None:
    assert commands.train([choice, "model=blocks", "model.width=2", *BRIEF]) == 0


def test_every_group_and_name_is_known_to_the_schema() -> None:
    assert set(overrides.groups()) == set(schema.SECTIONS)
    registries: dict[str, Any] = {"data": SOURCES, "optimizer": OPTIMIZERS, "loss": LOSSES}
    registries |= {"schedule": SCHEDULES, "task": TASKS}
    for group, registry in registries.items():
        assert set(overrides.choices(group)) == set(registry)
