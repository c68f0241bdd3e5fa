"""Every shipped config is built and trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cnn.arguments import model_of
from cnn.losses import LOSSES
from cnn.optimizers import OPTIMIZERS
from cnn.schedules import SCHEDULES
from runners import commands, overrides, schema
from runners.data import SOURCES
from runners.tasks import TASKS
from tests.runners.conftest import Run, write_dataset

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
def test_choices(choice: str, run: Run) -> None:
    assert run(choice, "epochs=1") == 0


ARGUMENTS: dict[str, Any] = {"optimizer": OPTIMIZERS, "loss": LOSSES, "schedule": SCHEDULES}


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in ARGUMENTS for name in ARGUMENTS[group]])
def test_a_config_lists_every_argument_with_its_default(group: str, name: str) -> None:
    listed = yaml.safe_load((overrides.CONFIGS / group / f"{name}.yaml").read_text(encoding="utf-8"))
    defaults = {key: field.default for key, field in model_of(ARGUMENTS[group][name]).model_fields.items()}
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}
    assert listed == {"name": name, **plain}


def test_every_group_and_name_is_known_to_the_schema() -> None:
    assert set(overrides.groups()) == set(schema.SECTIONS)
    registries: dict[str, Any] = {"data": SOURCES, "optimizer": OPTIMIZERS, "loss": LOSSES}
    registries |= {"schedule": SCHEDULES, "task": TASKS}
    for group, registry in registries.items():
        assert set(overrides.choices(group)) == set(registry)
