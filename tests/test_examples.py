"""The scripts in examples/ run as a user runs them, and do what their docstrings say. Small, so that this is fast."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.forks import Forked

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))


Script = Callable[..., str]


@pytest.fixture
def run(forked: Callable[..., Forked]) -> Script:
    """What a script prints, started from the project's root."""

    def script(name: str, *arguments: str) -> str:
        process = forked([sys.executable, f"examples/{name}.py", *arguments], ROOT)
        out, err = process.communicate()
        assert process.wait() == 0, err
        return out

    return script


def test_training_reports_the_accuracy_of_each_epoch(run: Script) -> None:
    lines = run("train_mnist", "--epochs", "2", "--examples", "320").splitlines()
    found = [re.fullmatch(r"epoch (\d)  test accuracy (\d+\.\d+)%", line) for line in lines]
    assert [match and match[1] for match in found] == ["1", "2"]
    assert all(match and float(match[2]) > 20 for match in found)  # guessing gives 10


def test_the_gradient_of_a_picture_is_saved(run: Script, tmp_path: Path) -> None:
    out = tmp_path / "gradient.png"
    assert run("picture_gradient", "--examples", "320", "--out", str(out)).endswith(f"saved {out}\n")
    assert out.read_bytes().startswith(b"\x89PNG")


def test_a_layer_of_ones_own_is_right_and_a_mistake_is_found(run: Script) -> None:
    right, wrong = run("own_layer").split("Forgetful")
    assert right.count("right") == 2
    assert "WRONG" not in right
    assert re.findall(r"(\S+) +\S+  WRONG", wrong) == ["x"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_docstring_says_what_is_shown_and_how_to_run_it(script: Path) -> None:
    docstring = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
    assert f"python examples/{script.name}" in docstring
    assert f"examples/{script.name}" in (ROOT / "docs/guide/README.md").read_text(encoding="utf-8")
