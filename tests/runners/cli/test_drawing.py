"""predict.py draws samples of noise, and walks between them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from runners.cli import predict
from runners.files import atomic, checkpoint
from runners.tasks.generative import Generative
from runners.tasks.registry import saved_task
from tests.runners.cli.test_predict_many import imported
from tests.runners.small_tasks import GAN, KINDS, VAE, train, untrained

ROOT = Path(__file__).parents[3]
Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("elsewhere")


def pixels(file: str | Path) -> Any:
    with Image.open(file) as opened:
        return np.asarray(opened).astype(int)


def tiles(file: str, count: int, columns: int) -> list[bytes]:
    """The pictures of a grid."""
    sheet = pixels(file)
    places = [(index // columns * 12, index % columns * 12) for index in range(count)]
    return [sheet[top : top + 10, left : left + 10].tobytes() for top, left in places]


def call(*arguments: object) -> int:
    return predict.main([str(argument) for argument in arguments])


@pytest.mark.parametrize("kind", ["vae", "gan"])
def test_a_grid_of_samples(kind: str, runs: Path, capsys: Capture) -> None:
    assert call(runs / kind, "--samples", 64, "--out", "grid.png") == 0
    assert capsys.readouterr() == ("grid.png: 64 samples\n", "")
    assert pixels("grid.png").shape == (94, 94)
    content = checkpoint.load_run(runs / kind)
    task = saved_task(content)
    assert isinstance(task, Generative)
    expected = task.snapshot()
    assert expected is not None
    assert np.abs(pixels("grid.png") - expected).max() <= 1
    assert [file.name for file in Path().iterdir()] == ["grid.png"]


@pytest.mark.parametrize("kind", ["vae", "gan", "conditional"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_sample_is_the_same_however_many_are_drawn(kind: str, dtype: str, striped: Path, tmp_path: Path) -> None:
    run = untrained(KINDS[kind], striped, tmp_path / "run", dtype=dtype)
    drawn = {}
    for count in (1, 9, 33, 100):
        assert call(run, "--samples", count, "--out", f"{count}.png", "--seed", 5) == 0
        columns = (pixels(f"{count}.png").shape[1] + 2) // 12
        drawn[count] = tiles(f"{count}.png", count, columns)
    for count, samples in drawn.items():
        assert samples == drawn[100][:count]
    assert len(set(drawn[100])) > 90  # a few may be the same, of noise that no unit of the decoder lets through
    assert call(run, "--samples", 9, "--out", "again.png", "--seed", 5) == 0
    assert Path("again.png").read_bytes() == Path("9.png").read_bytes()
    assert call(run, "--samples", 9, "--out", "other.png", "--seed", 6) == 0
    assert not set(tiles("other.png", 9, 3)) & set(drawn[100])


def test_columns_and_single_classes(runs: Path, capsys: Capture) -> None:
    run = runs / "conditional"
    assert call(run, "--samples", 60, "--out", "all.png") == 0
    assert pixels("all.png").shape == (7 * 12 - 2, 9 * 12 - 2)  # three columns for each of three classes
    assert call(run, "--samples", 60, "--out", "one.png", "--class", "down", "--json") == 0
    told = {"path": "one.png", "samples": 60, "seed": 0, "class": "down"}
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == told
    every, one = tiles("all.png", 60, 9), tiles("one.png", 60, 8)
    assert [a == b for a, b in zip(every, one, strict=True)] == [index % 3 == 1 for index in range(60)]


def test_weights_are_those_of_the_checkpoint_and_of_the_average(striped: Path, tmp_path: Path) -> None:
    """A generator's samples are drawn with its average, the state of its task."""
    folder = untrained(GAN, striped, tmp_path / "run")
    assert call(folder, "--samples", 4, "--out", "before.png") == 0
    content = checkpoint.load_run(folder)
    content.task_state["average"]["linear_2.bias"] += 3
    checkpoint.save(folder / "checkpoints/best.pkl", content)
    assert call(folder / "checkpoints/best.pkl", "--samples", 4, "--out", "after.png") == 0
    assert pixels("after.png").mean() > pixels("before.png").mean() + 50


@pytest.mark.parametrize("kind", ["vae", "conditional"])
def test_a_walk_starts_from_the_samples(kind: str, runs: Path, capsys: Capture) -> None:
    assert call(runs / kind, "--walk", "walk.gif", "--seed", 3) == 0
    assert capsys.readouterr().out == "walk.gif: a walk of 16 samples in 60 frames\n"
    assert call(runs / kind, "--samples", 9, "--walk", "nine.gif", "--out", "nine.png", "--seed", 3) == 0
    first = capsys.readouterr().out.splitlines()
    assert first == ["nine.png: 9 samples", "nine.gif: a walk of 9 samples in 60 frames"]
    with Image.open("walk.gif") as walk, Image.open("nine.gif") as nine:
        assert (walk.size, nine.size) == ((46, 46), (34, 34))
        assert np.abs(np.asarray(nine.convert("L")).astype(int) - pixels("nine.png")).max() <= 1
    before = Path("walk.gif").read_bytes()
    assert call(runs / kind, "--samples", 200, "--walk", "walk.gif", "--seed", 3) == 0
    assert Path("walk.gif").read_bytes() == before


@pytest.mark.parametrize("suffix", ["PNG", "jpg", "jpeg", "webp"])
def test_formats_and_files_that_exist(suffix: str, runs: Path) -> None:
    file = Path(f"grid.{suffix}")
    file.write_text("before")
    assert call(runs / "vae", "--samples", 4, "--out", file) == 0
    with Image.open(file) as opened:
        assert opened.size == (22, 22)


def test_a_file_that_cannot_be_written_is_one_line(
    runs: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Sequence[object]) -> None:
        raise OSError(28, "No space left on device", "x.png")

    monkeypatch.setattr(atomic, "write", full)
    assert call(runs / "vae", "--samples", 2, "--out", "x.png") == 2
    assert capsys.readouterr().err == "error: --out: x.png can't be written: No space left on device\n"


def test_a_picture_that_is_too_large_for_its_format(
    runs: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runners.drawing.Sampler.columns", lambda sampler, count: count)
    assert call(runs / "vae", "--samples", 1500, "--out", "x.webp") == 2
    assert capsys.readouterr().err.startswith("error: --out: x.webp: 17998x10 pixels can't be written in this format")


def test_a_trained_run(striped: Path, tmp_path: Path) -> None:
    run = train(VAE, striped, tmp_path / "run", epochs=1)
    for which in ("best", "last"):
        assert call(run, "--samples", 4, "--out", f"{which}.png", "--checkpoint", which) == 0
    assert Path("best.png").read_bytes() == Path("last.png").read_bytes()


def test_what_takes_long_to_import_is_not(runs: Path, tmp_path: Path) -> None:
    assert imported(runs / "gan", "--samples", 4, "--out", tmp_path / "x.png", "--walk", tmp_path / "x.gif") == "0"


def test_the_command_itself(runs: Path) -> None:
    command = [sys.executable, str(ROOT / "predict.py"), str(runs / "gan"), "--samples", "4", "--out", "x.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "x.png: 4 samples\n", "")
