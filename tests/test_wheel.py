"""The project as pip installs it: its commands do what run.py and predict.py do, from any folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runners.data.sources.idx import Mnist, read_idx

pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[1]
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
PARTS = ("cnn", "runners", "configs", "hydra_plugins")
MINE = {
    "model": "layers: [flatten, {linear: {out_features: 10}}]\n",
    "experiment": """\
# @package _global_
defaults:
  - override /model: mine
  - override /optimizer: sgd
epochs: 1
data: {num_examples: 640}
""",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: setuptools leaves files behind, and would take what was left behind earlier."""
    copy = tmp_path_factory.mktemp("source")
    for name in PARTS:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    subprocess.run([*PIP, "wheel", str(copy), "--no-deps", "--no-build-isolation", "-w", str(copy)], check=True)
    (made,) = copy.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    subprocess.run([*PIP, "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)], check=True)
    return target


def test_a_wheel_has_every_module_and_config_and_nothing_else(wheel: Path) -> None:
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    tracked = [file for name in PARTS for file in (ROOT / name).rglob("*.*")]
    here = {str(file.relative_to(ROOT)) for file in tracked if file.is_file() and "__pycache__" not in file.parts}
    assert packed == {f"runners/{name}" if name.startswith("configs/") else name for name in here}


def test_installed_commands_train_predict_and_evaluate_from_any_folder(installed: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed)}

    def run(command: str, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, str(installed / "bin" / command), *arguments]
        done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done

    where = "import cnn, runners.config.folders as folders; print(cnn.__file__, folders.CONFIGS)"
    found = subprocess.check_output([sys.executable, "-c", where], cwd=tmp_path, env=environment, text=True)
    assert found.split() == [str(installed / "cnn/__init__.py"), str(installed / "runners/configs")]
    for group, text in MINE.items():
        (tmp_path / "configs" / group).mkdir(parents=True)
        (tmp_path / "configs" / group / "mine.yaml").write_text(text)
    assert "cnn-train -m key=a,b" in run("cnn-train", "--help").stdout
    run("cnn-train", "experiment=mine", "run_dir=a", "threads=1")
    run("cnn-train", "-m", "experiment=mine", "seed=1,2", "jobs=2", "sweep_dir=swept")
    assert json.loads((tmp_path / "swept/1/status.json").read_text())["state"] == "done"
    digits = read_idx(Mnist().path / "t10k-images-idx3-ubyte.gz")
    Image.fromarray(np.asarray(digits[0])).save(tmp_path / "seven.png")
    assert run("cnn-predict", "a", "seven.png").stdout.startswith("Predicted Number: ")
    assert run("cnn-predict", "--help").stdout.startswith("usage: cnn-predict")
    summary = json.loads((tmp_path / "a/summary.json").read_text())
    assert run("cnn-report", "a").stdout.startswith("run a: done\n")
    assert run("cnn-report", "a", "--html", "a.html").stdout.startswith("wrote a.html: 1 run")
    evaluated = json.loads(run("cnn-evaluate", "a", "--json").stdout)
    assert evaluated["test/loss"] == pytest.approx(summary["test"]["test/loss"])
