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
from runners.cli import evaluate, train
from runners.config import folders, overrides, schema
from runners.data.sources import SOURCES, cifar10
from runners.files import checkpoint
from runners.tasks.registry import TASKS
from runners.training import debug
from tests.runners.conftest import Run
from tests.runners.data import small_data
from tools.small_runs import write_dataset


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["run.py"])


@pytest.mark.figures
@pytest.mark.parametrize("name", folders.choices("model"))
def test_models(name: str) -> None:
    """Two batches of training, validation and test."""
    others = {
        "conv3d": ["data=moving_mnist", "model.classes=8"],
        **{name: ["task=regression", "task.target=input", "loss=l2"] for name in ("autoencoder", "denoiser")},
    }
    more = others.get(name, [])
    assert train.main([f"model={name}", "model.width=3", "debug=fast", "batch_size=8", "threads=1", *more]) == 0


def files(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Write the few images that stand for a dataset without files of its own here; how many classes it has."""
    if name == "idx":
        write_dataset(folder)
    elif name == "arrays":
        small_data.write_arrays(folder)
    elif name == "folder":
        small_data.pictures(folder, {"a": 60, "b": 60, "c": 60})
    elif name == "fashion_mnist":
        small_data.write(folder, small_data.fashion_files(monkeypatch))
    elif name == "cifar10":
        small_data.write(folder / cifar10.FOLDER, small_data.cifar_files(monkeypatch))
    return {"idx": 3, "folder": 3, "arrays": 3, "moving_mnist": 8}.get(name, 10)


@pytest.mark.figures
@pytest.mark.parametrize("name", folders.choices("data"))
def test_data(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classes = files(name, tmp_path / "here", monkeypatch)
    typed = [f"data.path={tmp_path / 'here'}", "data.val_examples=20"] if (tmp_path / "here").exists() else []
    layers = f"model.layers=[flatten,{{linear:{{out_features:{classes}}}}}]"
    assert train.main([f"data={name}", *typed, layers, "debug=fast", "threads=1"]) == 0


@pytest.mark.parametrize("name", SOURCES)
def test_a_config_of_data_lists_every_argument(name: str) -> None:
    constructor: Any = SOURCES[name]
    listed = yaml.safe_load((folders.CONFIGS / "data" / f"{name}.yaml").read_text(encoding="utf-8"))
    assert list(listed) == ["name", *model_of(constructor).model_fields]


@pytest.mark.figures
@pytest.mark.parametrize("name", folders.choices("experiment"))
def test_experiments(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # a judge of two batches is no judge
    assert train.main([f"experiment={name}", "debug=fast", "batch_size=8"]) == 0
    (summary,) = Path("outputs").rglob("summary.json")
    assert json.loads(summary.read_text(encoding="utf-8"))["steps"] == 2


OF_SEVERAL_NETWORKS = {"task=gan", "task=vae", *(f"loss={n}" for n, loss in LOSSES.items() if loss.targets == "real")}
"""See test_generative_runs.py."""


@pytest.mark.parametrize(
    "choice",
    [
        f"{group}={name}"
        for group in ("augment", "optimizer", "loss", "schedule", "task")
        for name in folders.choices(group)
        if f"{group}={name}" not in OF_SEVERAL_NETWORKS
    ],
)
def test_choices(choice: str, run: Run) -> None:
    one_number = ["loss=l2", "model.layers=[flatten,{linear:{out_features:1}}]"]
    assert run(choice, "epochs=1", *(one_number if choice == "task=regression" else [])) == 0


ARGUMENTS: dict[str, Any] = {"optimizer": OPTIMIZERS, "loss": LOSSES, "schedule": SCHEDULES}


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in ARGUMENTS for name in ARGUMENTS[group]])
def test_a_config_lists_every_argument_with_its_default(group: str, name: str) -> None:
    listed = yaml.safe_load((folders.CONFIGS / group / f"{name}.yaml").read_text(encoding="utf-8"))
    defaults = {key: field.default for key, field in model_of(ARGUMENTS[group][name]).model_fields.items()}
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}
    assert listed == {"name": name, **plain}


def test_every_group_and_name_is_known_to_the_schema() -> None:
    assert set(folders.groups()) == {*schema.sections(["model"]), *folders.NETWORKS, "experiment", "debug"}
    main = yaml.safe_load((folders.CONFIGS / "config.yaml").read_text(encoding="utf-8"))
    unchosen = {group for entry in main["defaults"] if entry != "_self_" for group, name in entry.items() if not name}
    assert unchosen == {*folders.NETWORKS, *overrides.OPTIONAL}
    assert set(folders.choices("debug")) == {*debug.REPORTS, "fast"}
    registries: dict[str, Any] = {"data": SOURCES, "optimizer": OPTIMIZERS, "loss": LOSSES}
    registries |= {"schedule": SCHEDULES, "task": TASKS}
    for group, registry in registries.items():
        assert set(folders.choices(group)) == set(registry)


def test_configs_in_the_working_directory_are_choices(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    Path("configs/optimizer").mkdir(parents=True)
    Path("configs/optimizer/mine.yaml").write_text("{name: sgd, lr: 0.25}")
    assert run("optimizer=mine", "--cfg", "job") == 0
    assert "lr: 0.25" in capsys.readouterr().out
    Path("other").mkdir()
    assert run("optimizer=mine", "--config-dir", "other") == 2
    assert "optimizer: unknown 'mine'" in capsys.readouterr().err


def test_a_file_of_ones_own_with_the_name_of_the_projects_is_refused(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("configs/model").mkdir(parents=True)
    Path("configs/model/lenet.yaml").write_text((folders.CONFIGS / "model" / "lenet.yaml").read_text())
    assert run("model=lenet", "--cfg", "job") == 0
    Path("configs/model/lenet.yaml").write_text("layers: [flatten]")
    capsys.readouterr()
    assert run("model=lenet", "--cfg", "job") == 2
    assert capsys.readouterr().err.startswith("error: configs/model/lenet.yaml: one of the project's own configs has")


def test_a_resume_and_an_evaluation_know_configs_in_the_working_directory(
    run: Run, striped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for group, text in (("data", f"{{name: idx, path: {striped}}}"), ("optimizer", "{name: sgd, lr: 0.25}")):
        Path("configs", group).mkdir(parents=True)
        Path("configs", group, "mine.yaml").write_text(text)
    assert run("run_dir=a", "epochs=1") == 0
    assert evaluate.main(["a", "data=mine"]) == 0
    assert train.main(["resume=a", "epochs=2", "optimizer=mine", "resume_changed=true"]) == 0
    assert checkpoint.load(Path("a/checkpoints/last.pkl")).config["optimizer"] == {"name": "sgd", "lr": 0.25}
