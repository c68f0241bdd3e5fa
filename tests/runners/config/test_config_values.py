"""A config is values: whatever is made from it and done with that, it stays as it was."""

from __future__ import annotations

import copy
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from cnn.layers import LAYERS
from cnn.layers.dropout import Dropout
from runners.config.schema import Config
from runners.training import debug, setup
from tests.runners.conftest import Run


def test_a_run_changes_nothing_of_its_config(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Config, Any]] = []
    prepare = setup.prepare

    def noted(raw: Any, **options: Any) -> Config:
        config = prepare(raw, **options)
        seen.append((config, copy.deepcopy((config.settings.model_dump(), dict(config.raw)))))
        return config

    monkeypatch.setattr(setup, "prepare", noted)
    plateau = ["schedule=reduce_on_plateau", "schedule.patience=0", "schedule.warmup_steps=5"]
    assert run("run_dir=a", *plateau, "optimizer=sgd", "optimizer.momentum=0.9") == 0
    assert run("run_dir=b", *plateau, "debug=fast") == 0
    assert run("debug=overfit", *plateau, "loss.label_smoothing=0.1", "optimizer=adamw") == 0
    assert len(seen) == 3
    for config, before in seen:
        assert (config.settings.model_dump(), dict(config.raw)) == before


def test_what_is_made_of_a_config_is_made_anew(run: Run) -> None:
    assert run("run_dir=a", "epochs=1", "optimizer=sgd", "optimizer.momentum=0.9") == 0
    config = setup.prepare(yaml.safe_load(Path("a/config.yaml").read_text()))
    assert config.optimizer("model") is not config.optimizer("model")
    assert config.optimizer("model").state() == {"steps": 0}
    assert config.source() is not config.source()
    for change in ("settings", "raw", "device"):
        with pytest.raises(FrozenInstanceError):
            setattr(config, change, None)
    with pytest.raises(ValidationError):
        config.settings.epochs = 3
    assert config.changed(epochs=7).settings.epochs == 7
    assert config.settings.epochs == 1


class Light(Dropout):
    kind = "light"


class Fixed(Dropout):
    kind = "fixed"

    def __init__(self) -> None:
        super().__init__(0.5)


def test_overfit_turns_off_dropout_of_ones_own_if_it_takes_p(monkeypatch: pytest.MonkeyPatch) -> None:
    for layer in (Light, Fixed):
        monkeypatch.setitem(LAYERS, layer.kind, layer)
    assert debug._without_dropout(["light", {"light": None}, "fixed"]) == [*[{"light": {"p": 0.0}}] * 2, "fixed"]


def test_overfit_turns_dropout_off_at_any_depth() -> None:
    repeated = {"repeat": {"times": 2, "layers": ["dropout"]}}
    layers = ["relu", "dropout", {"dropout2d": {"p": 0.3, "name": "drop"}}, repeated, {"tanh": {"name": "dropout"}}]
    assert debug._without_dropout(layers) == [
        "relu",
        {"dropout": {"p": 0.0}},
        {"dropout2d": {"p": 0.0, "name": "drop"}},
        {"repeat": {"times": 2, "layers": [{"dropout": {"p": 0.0}}]}},
        {"tanh": {"name": "dropout"}},
    ]
