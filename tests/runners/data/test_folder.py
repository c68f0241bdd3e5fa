"""Pictures in folders: what is read, how it is divided, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from runners import exit_codes
from runners.cli import evaluate, predict
from runners.data.sources import folder as module
from runners.data.sources.folder import Folder
from runners.errors import DataError
from runners.pictures.reading import prepare_plain, read_picture
from runners.signals import Interrupted
from tests.runners.conftest import Run
from tests.runners.data.small_data import forbid, picture, pictures

THREE = {"red": 20, "green": 20, "blue": 20}


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """Three classes in folders train and test."""
    folder = tmp_path / "colours"
    pictures(folder / "train", THREE)
    pictures(folder / "test", dict.fromkeys(THREE, 5))
    return folder


def test_pictures_are_what_prediction_sees(colours: Path) -> None:
    source = Folder(str(colours), size=[9, 7])
    train, test = source.read()
    assert source.class_names == ["blue", "green", "red"]
    assert train.images.shape == (60, 3, 9, 7)
    assert (len(test), test.targets.tolist()) == (15, [0] * 5 + [1] * 5 + [2] * 5)
    seen = prepare_plain(read_picture(colours / "train/green/0.png"), (3, 9, 7)).pixels
    assert np.array_equal(train.images[20].numpy() / np.float32(255), seen)
    assert torch.equal(source.test_examples().images, test.images)


def test_train_and_test_may_be_written_large(colours: Path) -> None:
    expected = Folder(str(colours), val_examples=10).load()
    (colours / "train").rename(colours / "Train")
    (colours / "test").rename(colours / "TEST")
    found = Folder(str(colours), val_examples=10).load()
    assert (found.fingerprint, found.class_names) == (expected.fingerprint, expected.class_names)
    (colours / "TEST").rename(colours / "Tset")
    with pytest.raises(DataError, match=r"test: there is no such folder, although there is .*Train"):
        Folder(str(colours)).read()


def test_grey(colours: Path) -> None:
    train, _ = Folder(str(colours), channels=1, size=10).read()
    assert train.images.shape == (60, 1, 10, 10)


def test_numbers_in_names_count_as_numbers(tmp_path: Path) -> None:
    names = ["10", "9", "b2", "B10", "1", "01", "a"]
    source = Folder(str(pictures(tmp_path / "data", dict.fromkeys(names, 2))))
    source.read()
    assert source.class_names == ["01", "1", "9", "10", "a", "b2", "B10"]


def test_a_share_of_each_class_is_the_test(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "data", {"a": 50, "b": 10, "c": 2})
    train, test = Folder(str(folder)).read()
    assert torch.bincount(test.targets).tolist() == [10, 2, 1]
    assert torch.bincount(train.targets).tolist() == [40, 8, 1]
    rows = [{image.numpy().tobytes() for image in part.images} for part in (train, test)]
    assert not rows[0] & rows[1]
    again, other = Folder(str(folder)).read()[1], Folder(str(folder), split_seed=1).read()[1]
    assert torch.equal(test.images, again.images)
    assert not torch.equal(test.images, other.images)
    most = Folder(str(folder), test_share=0.99).read()
    assert torch.bincount(most[0].targets).tolist() == [1, 1, 1]


def test_what_is_no_picture_is_passed_over(colours: Path) -> None:
    before = Folder(str(colours), val_examples=10).load().fingerprint
    for name in ("train/.DS_Store", "train/red/Thumbs.db", "train/red/README.txt", "train/red/._0.png", "README.txt"):
        (colours / name).write_bytes(b"no picture")
    picture(colours / "train/.hidden/0.png", np.zeros((9, 9)))
    picture(colours / "train/red/.hidden/0.png", np.zeros((9, 9)))
    (colours / "train/red/album.png").mkdir()
    assert Folder(str(colours), val_examples=10).load().fingerprint == before
    picture(colours / "train/red/album.png/deep/new.JPG", np.zeros((9, 9)))
    dataset = Folder(str(colours), val_examples=10).load()
    assert dataset.fingerprint != before
    assert len(dataset.train) + len(dataset.val) == 61


def test_from_pictures_to_a_prediction(run: Run, colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["data=folder", f"data.path={colours}", "data.val_examples=10"]
    assert run(*data, "data.size=10", "epochs=8", "run_dir=first") == 0
    assert json.loads(Path("first/summary.json").read_text())["test"]["test/accuracy"] == 1
    capsys.readouterr()
    assert predict.main(["first", str(colours / "test/green/0.png")]) == 0
    assert capsys.readouterr().out.startswith("Predicted: green\n")
    shutil.rmtree(colours / "test/blue")
    shutil.rmtree(colours / "train/blue")
    assert evaluate.main(["first", "--json"]) == 0  # red is class 1 of these two, and class 2 of the network
    found = json.loads(capsys.readouterr().out)
    assert (found["class_names"], np.diag(found["confusion"]).tolist()) == (["blue", "green", "red"], [0, 5, 5])
    (colours / "test/red").rename(colours / "test/rot")
    (colours / "train/red").rename(colours / "train/rot")
    assert evaluate.main(["first"]) == 2
    assert capsys.readouterr().err == "error: the data have a class rot, but the network knows blue, green, red\n"


Damage = Callable[[Path], object]


def junk(*names: str) -> Damage:
    def damage(folder: Path) -> None:
        for name in names:
            (folder / name).write_bytes(b"no picture")

    return damage


def cut(folder: Path) -> None:
    file = folder / "test/blue/3.png"
    file.write_bytes(file.read_bytes()[:-40])


def emptied(name: str) -> Damage:
    def damage(folder: Path) -> None:
        shutil.rmtree(folder / name)
        (folder / name).mkdir()

    return damage


def only(*names: str) -> Damage:
    def damage(folder: Path) -> None:
        for part in ("train", "test"):
            for path in list((folder / part).iterdir()):
                if path.name not in names:
                    shutil.rmtree(path)

    return damage


def flat(folder: Path) -> None:
    """Pictures without folders."""
    shutil.rmtree(folder / "test")
    for number, file in enumerate(list(folder.rglob("*.png"))):
        file.rename(folder / f"{number}.png")
    shutil.rmtree(folder / "train")


def lonely(folder: Path) -> None:
    shutil.rmtree(folder)
    pictures(folder, {"a": 3, "b": 1})


FAULTS: dict[str, tuple[Damage, list[str]]] = {
    "no picture": (junk("train/red/7.png"), ["train/red/7.png: not a picture"]),
    "an empty file": (lambda folder: (folder / "test/red/7.jpg").touch(), ["test/red/7.jpg: an empty file"]),
    "cut short": (cut, ["test/blue/3.png: can't be read"]),
    "a pipe": (lambda folder: os.mkfifo(folder / "train/red/x.png"), ["train/red/x.png: not a regular file"]),
    "a link to nothing": (
        lambda folder: (folder / "train/red/x.png").symlink_to("nothing"),
        ["train/red/x.png: there is no such file"],
    ),
    "three": (
        junk("train/blue/0.png", "train/red/0.png", "test/red/0.png"),
        ["train/blue/0.png: ", "train/red/0.png: ", "test/red/0.png: "],
    ),
    "many": (
        junk(*(f"train/blue/{number}.png" for number in range(20))),
        [
            "0.png: ",
            "1.png: ",
            "10.png: not a picture in PNG, JPEG, BMP, GIF, TIFF, WebP or PPM format (and 17 more that can't be read)",
        ],
    ),
    "no pictures of a class": (emptied("train/red"), ["train/red: it has no pictures (PNG, JPEG, "]),
    "no pictures of a test class": (emptied("test/green"), ["test/green: it has no pictures"]),
    "one class": (only("red"), ["only one class, red, give at least two"]),
    "no class": (only(), ["test: it has no pictures"]),
    "no test classes": (emptied("test"), ["test: it has no subfolders, give one per class"]),
    "no test": (lambda folder: shutil.rmtree(folder / "test"), ["test: there is no such folder, although there is"]),
    "no training": (
        lambda folder: shutil.rmtree(folder / "train"),
        ["train: there is no such folder, although there is"],
    ),
    "a class in the test alone": (
        lambda folder: shutil.rmtree(folder / "train/red"),
        ["test/red: there is no class red in "],
    ),
    "pictures without folders": (flat, ["colours: it has no subfolders, give one per class"]),
    "one picture of a class": (lonely, ["colours/b: it has one picture, give at least two, as one is for the test"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_folders(fault: str, run: Run, colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage, expected = FAULTS[fault]
    damage(colours)
    assert run("data=folder", f"data.path={colours}", "data.val_examples=10") == 2
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert len(lines) == len(expected)
    for line, text in zip(lines, expected, strict=True):
        assert line.startswith(f"error: {colours}")
        assert text in line
    assert out == ""
    assert [path.name for path in Path().iterdir()] == ["colours"]


@pytest.mark.parametrize("name", ["train/red", "test/blue/more"])
def test_a_folder_that_may_not_be_read(
    name: str, run: Run, colours: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its pictures aren't left out silently."""
    picture(colours / name / "one.png", np.zeros((9, 9)))
    forbid(monkeypatch, colours / name)
    assert run("data=folder", f"data.path={colours}", "data.val_examples=10") == 2
    assert capsys.readouterr().err == f"error: {colours / name}: can't be read: Permission denied\n"
    assert [path.name for path in Path().iterdir()] == ["colours"]


ARGUMENTS = {
    "data.size=0": "data.size: 0 is not allowed, give a whole number >= 1 and <= 4096 or a list of 2 values",
    "data.size=[10]": "data.size: [10] is not allowed",
    "data.size=[10,0]": "data.size: [10, 0] is not allowed",
    "data.channels=2": "data.channels: 2 is not allowed, give one of 1, 3",
    "data.test_share=1": "data.test_share: 1 is not allowed",
    "data.path=": "data.path: '' is not allowed",
    "data.path=???": "data.path: must be given: data.path=...",
    "data.val_examples=60": "data.val_examples: 60 leaves no examples for training",
    "data.num_examples=51": "data.num_examples: 51 is more than the 50 examples left after validation",
}


@pytest.mark.parametrize("override", ARGUMENTS)
def test_bad_arguments(override: str, run: Run, colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = {"data.path": str(colours), "data.val_examples": "10"} | dict([override.split("=", 1)])
    assert run("data=folder", *(f"{key}={value}" for key, value in given.items())) == 2
    assert ARGUMENTS[override] in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == ["colours"]


def test_more_pixels_than_are_read(
    colours: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 10**6)
    assert run("data=folder", f"data.path={colours}", "data.size=100") == 2
    told = "data.size: 75 pictures of [3, 100, 100] take 2,250,000 bytes, at most 1,000,000 are allowed\n"
    assert capsys.readouterr().err == f"error: {told}"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_reading(
    number: signal.Signals, colours: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = []

    def slow(path: Path) -> Image.Image:
        opened.append(path)
        if len(opened) == 5:
            os.kill(os.getpid(), number)
        time.sleep(0.02)
        return read_picture(path)

    monkeypatch.setattr(module, "read_picture", slow)
    assert run("data=folder", f"data.path={colours}", "data.val_examples=10") == 128 + number
    assert capsys.readouterr().err == f"interrupted by {number.name}\n"
    assert len(opened) < 40
    assert [path.name for path in Path().iterdir()] == ["colours"]


def test_commands_end_with_the_code_of_a_signal() -> None:
    def interrupted(arguments: object) -> int:
        raise Interrupted(signal.SIGTERM)

    assert exit_codes.guarded(interrupted, []) == 143


def test_warnings_are_as_before_once_pictures_are_read(colours: Path) -> None:
    before = list(warnings.filters)
    for _ in range(10):
        Folder(str(colours), val_examples=10).load()
    assert warnings.filters == before
