"""Prediction of many pictures: in batches, with the answers of one by one; and what the command doesn't import."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cnn import Mode, build_model, ops
from runners import prediction
from runners.cli import predict
from runners.pictures import reading
from runners.pictures.morphology import closing
from runners.prediction import MAX_BATCH, Predictor
from tests.runners.conftest import Run
from tests.runners.data.small_data import pictures
from tests.runners.pictures.odd_pictures import PAPER, SEVEN, encoded

ROOT = Path(__file__).parents[3]
Capture = pytest.CaptureFixture[str]


def digits_in(folder: Path, digits: tuple[Any, Any], count: int) -> Path:
    """MNIST's first test digits, in a folder for each class."""
    for number, (image, label) in enumerate(zip(digits[0][:count], digits[1][:count], strict=True)):
        file = folder / str(label) / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    return folder


def lines(capsys: Capture, *arguments: object) -> list[str]:
    predict.main([*map(str, arguments), "--json"])
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("large", [1 << 18, 1], ids=["one thread", "several threads"])
def test_answers_are_those_of_one_by_one(
    large: int,
    trained: Path,
    digits: tuple[Any, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    """Whatever the batches are and where a picture is in them, and with pictures that can't be read in between."""
    monkeypatch.setattr(prediction, "LARGE", large)
    folder = digits_in(tmp_path / "digits", digits, 2 * MAX_BATCH + 7)
    (folder / "3" / "text.png").write_text("no picture")
    paths = sorted(folder.rglob("*.png"))
    together = lines(capsys, trained, folder)
    assert [json.loads(line)["path"] for line in together] == [str(path) for path in paths]
    assert together == [line for path in paths for line in lines(capsys, trained, path)]
    assert together[::-1] == lines(capsys, trained, *paths[::-1])
    assert sum("error" in json.loads(line) for line in together) == 1


@pytest.mark.parametrize("classes", [3, 10, 1000])
def test_a_place_in_a_batch_changes_no_bit(classes: int) -> None:
    layers = [
        *({"conv2d": {"out_channels": 24, "kernel_size": 3, "padding": 1}}, "batch_norm", "relu"),
        *({"max_pool2d": {"kernel_size": 2}}, {"conv2d": {"out_channels": 70, "kernel_size": 5}}, "relu"),
        *({"avg_pool2d": {"kernel_size": 2}}, "flatten", {"linear": {"out_features": 90}}, "relu"),
        {"linear": {"out_features": classes}},
    ]
    net = build_model({"layers": layers}, (3, 20, 20))
    one = torch.rand(3, 20, 20, 1)
    alone = torch.zeros(3, 20, 20, MAX_BATCH)
    alone[..., :1] = one
    with ops.kernels("reference"):
        y = net.forward(one.repeat(1, 1, 1, MAX_BATCH), Mode(train=False))[0].softmax(0)
        first = net.forward(alone, Mode(train=False))[0].softmax(0)[:, :1]
    assert torch.equal(y, first.expand_as(y))


def test_large_pictures_are_classified_one_by_one(trained: Path) -> None:
    predictor = Predictor.load(str(trained))
    assert predictor.batch_size == MAX_BATCH
    predictor.content.data.input_shape[:] = [3, 512, 512]
    assert Predictor(predictor.task, predictor.content).batch_size == 1


def test_answers_of_doubles_are_those_of_one_by_one(run: Run, tmp_path: Path, capsys: Capture) -> None:
    data = pictures(tmp_path / "own", {"a": 12, "b": 12, "c": 12})
    assert run("data=folder", f"data.path={data}", "data.val_examples=5", "dtype=float64", "run_dir=first") == 0
    capsys.readouterr()
    paths = sorted(data.rglob("*.png"))
    assert lines(capsys, "first", data) == [line for path in paths for line in lines(capsys, "first", path)]


def test_threads_are_as_before(trained: Path, tmp_path: Path, capsys: Capture) -> None:
    SEVEN.save(tmp_path / "a.png")
    before = torch.get_num_threads()
    lines(capsys, trained, tmp_path)
    assert torch.get_num_threads() == before


def test_the_share_of_right_answers(trained: Path, digits: tuple[Any, Any], tmp_path: Path, capsys: Capture) -> None:
    """Of folders that are all named as classes, and of no others."""
    folder = digits_in(tmp_path / "digits", digits, 40)
    (folder / "3" / "text.png").write_text("no picture")
    assert predict.main([str(trained), str(folder)]) == 2
    *answers, last = capsys.readouterr().out.splitlines()
    right = sum(line.split("/")[-2] == line.split("Predicted Number: ")[1][0] for line in answers)
    assert right >= 36
    named = "pictures that were read are of the class that their folder is named as"
    assert last == f"accuracy {right / 40:.2%}: {right} of the 40 {named}"
    (folder / "3").rename(folder / "three")
    predict.main([str(trained), str(folder)])
    assert "accuracy" not in capsys.readouterr().out


PROGRAM = """
import sys
from runners.cli import predict
code = predict.main(sys.argv[1:])
slow = {"numba", "hydra", "omegaconf", "scipy", "matplotlib"}
print(code, *sorted(slow & set(sys.modules)))
"""


def imported(*arguments: object) -> str:
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.splitlines()[-1]


def test_what_takes_long_to_import_is_not(run: Run, trained: Path, tmp_path: Path) -> None:
    """Scipy for digits alone; no compiler of kernels, and nothing that reads configs."""
    SEVEN.save(tmp_path / "a.png")
    assert imported(trained, tmp_path / "a.png") == "0 scipy"
    data = pictures(tmp_path / "own", {"a": 10, "b": 10, "c": 10})
    assert run("data=folder", f"data.path={data}", "data.val_examples=5", "data.size=10", "run_dir=first") == 0
    assert imported(Path("first").resolve(), data) == "0"


@pytest.mark.parametrize("shape", [(1, 1), (5, 9), (112, 80), (2, 30, 41)])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 28, 57])
def test_closing_is_that_of_scipy(shape: tuple[int, ...], size: int) -> None:
    from scipy import ndimage

    images = np.random.default_rng(0).random(shape).astype(np.float32)
    for image, found in zip(np.atleast_3d(images.T).T, np.atleast_3d(closing(images, size).T).T, strict=True):
        padded = np.pad(image, size, mode="edge")
        assert np.array_equal(found, ndimage.grey_closing(padded, (size, size))[size:-size, size:-size])


def from_input(run: Path, content: bytes, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, str(ROOT / "predict.py"), str(run), *arguments]
    return subprocess.run(command, input=content, cwd=cwd, capture_output=True, check=False, timeout=120)


def test_a_picture_from_the_standard_input(trained: Path, tmp_path: Path) -> None:
    """Through a real pipe; a file of that name is another picture."""
    Image.new("L", (30, 30), 200).save(tmp_path / "-", "PNG")
    done = from_input(trained, encoded(PAPER, "JPEG"), "-", "./-", "--json", cwd=tmp_path)
    seven, blank = (json.loads(line) for line in done.stdout.splitlines())
    assert (done.returncode, done.stderr) == (2, b"")
    assert (seven["path"], seven["label"], seven["inverted"]) == ("-", "7", True)
    assert blank == {"path": "-", "error": "nothing is drawn on it"}


class Input(io.TextIOWrapper):
    def __init__(self, content: bytes, terminal: bool) -> None:
        super().__init__(io.BytesIO(content))
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.mark.parametrize(
    ("content", "terminal", "told"),
    [
        (b"", False, "nothing came from the standard input"),
        (encoded(SEVEN), True, "the standard input is a terminal, give it a picture with < or |"),
        (b"hello", False, "not a picture in PNG, JPEG, BMP, GIF, TIFF, WebP or PPM format"),
        (encoded(SEVEN)[:900], False, "can't be read: image file is truncated"),
        (bytes(2 << 20), False, "more than 1 MB came from the standard input"),
    ],
)
def test_what_is_no_picture_in_the_standard_input(
    content: bytes, terminal: bool, told: str, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(sys, "stdin", Input(content, terminal))
    monkeypatch.setattr(reading, "MAX_BYTES", 1 << 20)
    assert predict.main([str(trained), "-"]) == 2
    assert capsys.readouterr().err.startswith(f"error: -: {told}")
