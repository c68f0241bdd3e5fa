"""How a config names trackers, and what is refused before a run directory is created."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from cnn.faults import ConfigError
from runners.trackers import registry
from runners.trackers.registry import chosen
from tests.runners.conftest import Run, faults
from tests.runners.trackers.conftest import OWN

KNOWN = "(known: mlflow, tensorboard, wandb)"
WRONG = {
    "tracker=tensorbord": [f"tracker: unknown 'tensorbord', did you mean tensorboard? {KNOWN}"],
    "tracker=[mlflow,wand]": [f"tracker.1: unknown 'wand', did you mean wandb? {KNOWN}"],
    "tracker=7": ["tracker: 7 is not allowed, give a name, or one name with its arguments"],
    "tracker=[[mlflow]]": ["tracker.0: ['mlflow'] is not allowed, give a name, or one name with its arguments"],
    "tracker=[mlflow,mlflow]": ["tracker.1: mlflow is given twice"],
    "tracker={mlflow:3}": ["tracker.mlflow: 3 is not allowed, give arguments by name"],
    "tracker={mlflow:{uri:x}}": ["tracker.mlflow.uri: unknown, known: experiment, tracking_uri"],
    "tracker=[{wandb:{mode:on}},{mlflow:{experiment:3}},x]": [
        "tracker.0.wandb.mode: 'on' is not allowed, give one of online, offline or null",
        "tracker.1.mlflow.experiment: 3 is not allowed, give a text or null",
        f"tracker.2: unknown 'x', {KNOWN.strip('()')}",
    ],
    "tracker={tensorboard:{logdir:x}}": ["tracker.tensorboard.logdir: unknown, nothing can be given here"],
}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_check_installed", lambda package, place: None)


@pytest.mark.parametrize("given", WRONG)
def test_what_is_wrong_is_reported_with_its_place(
    given: str, run: Run, installed: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(given) == 2
    assert faults(capsys) == WRONG[given]


def test_every_notation(installed: None) -> None:
    arguments = {"tracking_uri": "sqlite:///x.db", "experiment": "digits"}
    assert chosen(None) == []
    assert chosen([]) == []
    notations: list[object] = ["mlflow", ["mlflow"], {"mlflow": None}, [{"mlflow": {}}]]
    for value in notations:
        assert [(one.tracker.kind, dict(one.arguments)) for one in chosen(value)] == [("mlflow", {})]
    several = chosen(["tensorboard", {"mlflow": arguments}, {"wandb": {"project": "p", "mode": "offline"}}])
    assert [one.tracker.kind for one in several] == ["tensorboard", "mlflow", "wandb"]
    assert several[1].arguments == arguments
    assert [one.tracker.kind for one in chosen({"mlflow": arguments, "wandb": None})] == ["mlflow", "wandb"]


@pytest.mark.parametrize("package", ["tensorboard", "mlflow", "wandb"])
def test_a_missing_package_is_one_line(
    package: str, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == package else found(name, *rest)
    )
    assert run(f"tracker={package}") == 2
    advice = f'pip install -c constraints.txt -e ".[{package}]"'
    assert faults(capsys) == [f"tracker: {package} is not installed: {advice}"]


def test_a_folder_with_the_name_of_a_package_is_not_the_package(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "wandb").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(ConfigError, match="wandb is not installed"):
        registry._check_installed("wandb", "tracker")


def test_a_tracker_of_ones_own_checks_its_arguments(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(OWN, "tracker={notes:{file:x}}") == 2
    assert faults(capsys) == ["tracker.notes: x has to end in .jsonl"]
    assert run(OWN, "tracker={notes:{fil:x}}") == 2
    assert faults(capsys) == ["tracker.notes.fil: unknown, did you mean file? (known: file)"]


def test_trackers_of_an_experiment_file(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "experiment"
    folder.mkdir(parents=True)
    lines = ["# @package _global_", "tracker:", "  - notes: {file: one.jsonl}"]
    (folder / "tracked.yaml").write_text("\n".join(lines) + "\n")
    assert run("--config-dir=mine", "experiment=tracked", OWN, "run_dir=a", "epochs=1") == 0
    assert (tmp_path / "a/one.jsonl").exists()


def test_a_start_imports_no_library_and_the_process_of_a_tracker_no_torch() -> None:
    libraries = ["tensorboard", "mlflow", "wandb", "sqlalchemy", "google.protobuf"]
    for module, absent in (("runners.training.experiment", libraries), ("runners.trackers.worker", ["torch", "cnn"])):
        code = f"import sys, {module}; print([name for name in {absent} if name in sys.modules])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "[]\n"
