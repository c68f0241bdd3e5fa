"""Every shipped config is built and trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cnn.arguments import model_of
from cnn.losses import LOSSES
from cnn.optimizers import OPTIMIZERS
from cnn.schedules import SCHEDULES
from runners import commands, debug, overrides, schema
from runners.data import SOURCES
from runners.tasks import TASKS
from tests.runners.conftest import Run


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["run.py"])


@pytest.mark.parametrize("name", overrides.choices("model"))
def test_models(name: str) -> None:
    """Two batches of training, validation and test."""
    clips = ["data=moving_mnist", "model.classes=8"] if name == "conv3d" else []
    assert commands.train([f"model={name}", "model.width=3", "debug=fast", "batch_size=8", *clips]) == 0


@pytest.mark.parametrize("name", overrides.choices("experiment"))
def test_experiments(name: str) -> None:
    assert commands.train([f"experiment={name}", "debug=fast", "batch_size=8"]) == 0
    (summary,) = Path("outputs").rglob("summary.json")
    assert json.loads(summary.read_text(encoding="utf-8"))["steps"] == 2


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
    assert set(overrides.groups()) == {*schema.SECTIONS, "experiment", "debug"}
    assert set(overrides.choices("debug")) == {*debug.REPORTS, "fast"}
    registries: dict[str, Any] = {"data": SOURCES, "optimizer": OPTIMIZERS, "loss": LOSSES}
    registries |= {"schedule": SCHEDULES, "task": TASKS}
    for group, registry in registries.items():
        assert set(overrides.choices(group)) == set(registry)
