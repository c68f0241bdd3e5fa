"""A leading `~` is the home directory in every path that a command takes: no shell sees the one in `run_dir=~/x`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from runners.cli import evaluate, predict, train
from runners.files.paths import user_path
from tests.runners.config.test_extensions import FILES, forget
from tests.runners.conftest import Run
from tests.runners.outcomes import stop_at

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(folder))
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_directories_and_data(
    home: Path, run: Run, striped: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    shutil.copytree(striped, home / "data")
    with monkeypatch.context() as patch:
        stop_at(3, patch)
        assert run("run_dir=~/first", "data.path=~/data", "epochs=1") == 143
    assert train.main(["resume=~/first", "data.path=~/data/../data"]) == 0
    assert run("-m", "sweep_dir=~/swept", "init_from=~/first", "epochs=1", "seed=1,2") == 0
    assert names(home) == ["data", "first", "swept"]
    assert names(Path()) == []
    Image.new("L", (10, 10)).save(home / "picture.png")
    capsys.readouterr()
    assert predict.main(["~/first", "~/picture.png", "--json"]) == 0
    assert f'"path": "{home}/picture.png"' in capsys.readouterr().out
    assert evaluate.main(["~/first", "data.path=~/data"]) == 0
    assert run("run_dir=~/first") == 2
    assert f"run_dir: {home}/first already exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    "given", ["~/scale.py", "[~/scale.py]", "['~/scale.py']", "[~/kinds.py,~/scale.py]", "[~/kinds.py, ~/scale.py]"]
)
def test_extensions_and_configs(given: str, home: Path, run: Run) -> None:
    for file in ("scale.py", "kinds.py"):
        shutil.copy(FILES / file, home)
    (home / "configs" / "model").mkdir(parents=True)
    (home / "configs" / "model" / "mine.yaml").write_text("layers: [scale, flatten, {linear: {out_features: 3}}]\n")
    try:
        assert run(f"extensions={given}", "model=mine", "--config-dir", "~/configs", "debug=summary") == 0
    finally:
        forget()


def test_what_is_no_home_directory() -> None:
    assert [str(user_path(text)) for text in ("~nobody_at_all/x", "a/~/x", "./~")] == ["~nobody_at_all/x", "a/~/x", "~"]
    assert user_path(user_path("./~")) == Path("~")
