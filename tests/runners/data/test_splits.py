"""Folders of splits under their usual names, folders behind links, and what a run says of the data it found."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from runners.cli import predict
from runners.data.sources.folder import Folder
from runners.data.sources.idx import Mnist
from runners.errors import DataError
from runners.pictures.reading import find_pictures
from tests.runners.conftest import Run
from tests.runners.data.small_data import picture, pictures

THREE = {"red": 20, "green": 20, "blue": 20}


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """Three classes in folders train, val and test."""
    folder = tmp_path / "colours"
    for name, count in (("train", 20), ("val", 3), ("test", 5)):
        pictures(folder / name, dict.fromkeys(THREE, count))
    return folder


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("training", "validation", "testing"),
        ("training_set", "valid_set", "test_set"),
        ("TrainSet", "dev", "TestSet"),
        ("Training Data", "val-images", "test images"),
    ],
)
def test_splits_under_their_usual_names(train: str, val: str, test: str, colours: Path) -> None:
    expected = Folder(str(colours)).load()
    for name, other in (("train", train), ("val", val), ("test", test)):
        (colours / name).rename(colours / other)
    found = Folder(str(colours)).load()
    assert (found.fingerprint, found.class_names) == (expected.fingerprint, ["blue", "green", "red"])
    assert (len(found.train), len(found.val), len(found.test)) == (60, 9, 15)


def test_validation_pictures_are_those_of_their_folder(colours: Path) -> None:
    """All of them, or as many as are asked for; the training pictures all stay for training."""
    picture(colours / "val/red/0.png", np.full((12, 15, 3), 255))
    dataset = Folder(str(colours)).load()
    assert torch.bincount(dataset.val.targets).tolist() == [3, 3, 3]
    assert int((dataset.val.images == 255).all(dim=(1, 2, 3)).sum()) == 1
    assert not dataset.validated_on_test
    some = Folder(str(colours), val_examples=4, num_examples=50).load()
    assert (len(some.train), len(some.val)) == (50, 4)
    picture(colours / "val/red/0.png", np.full((12, 15, 3), 254))
    assert Folder(str(colours)).load().fingerprint != dataset.fingerprint
    with pytest.raises(DataError, match=r"data.val_examples: 10 is more than the 9 examples in the validation file"):
        Folder(str(colours), val_examples=10).load()
    with pytest.raises(DataError, match=r"data.val_split: test is not allowed, as there is a folder of validation"):
        Folder(str(colours), val_split="test").load()


def test_a_run_is_validated_on_them(run: Run, colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (colours / "extra").mkdir()
    assert run("data=folder", f"data.path={colours}", "data.val_examples=null", "data.size=10", "run_dir=a") == 0
    lines = capsys.readouterr().out.splitlines()
    told = "data: 60 training, 9 validation and 15 test examples of 3 classes (for training: blue 20, green 20, red 20)"
    notes = [
        f"note: the validation examples are those of {colours / 'val'}",
        f"note: passed over in {colours}, beside train: extra",
    ]
    assert lines[:3] == [told, *notes]
    log = Path("a/run.log").read_text()
    assert all(line in log for line in (told, *notes))


def test_many_classes_are_counted_in_one_line() -> None:
    assert Mnist(num_examples=20000).load().as_text() == (
        "data: 20,000 training, 5,000 validation and 10,000 test examples of 10 classes, 0 to 9 "
        "(for training: 1,778 to 2,226 each)"
    )


REFUSED = {
    ("learning/a", "learning/b", "exam/a", "exam/b"): (
        "{}: its folders exam, learning hold no pictures but the same folders, a, b: name them train, val and test if "
        "they are splits, or give one of them as data.path"
    ),
    ("train/x/a", "train/y/a", "test/x/a", "test/y/a"): "{}/train: its folders x, y hold no pictures but the same",
    ("train/a", "train/b", "Training/a", "test/a"): "{}: train and Training would both be train, rename one of them",
    ("train/a", "train/b", "val/c", "test/a"): "{}/val/c: there is no class c in {}/train",
    ("train/a", "train/b", "val/a"): "{}/test: there is no such folder, although there is {}/train, and no test set",
}


@pytest.mark.parametrize("places", REFUSED)
def test_splits_that_are_refused(
    places: tuple[str, ...], run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in places:
        pictures(tmp_path / "data" / place, {"": 3})
    assert run("data=folder", f"data.path={tmp_path / 'data'}") == 2
    expected = REFUSED[places].replace("{}", str(tmp_path / "data"))
    assert capsys.readouterr().err.startswith(f"error: {expected}")
    assert [path.name for path in Path().iterdir()] == ["data"]


def test_classes_may_have_some_folders_alike_and_names_of_splits(tmp_path: Path) -> None:
    for place in ("train/a", "car/a", "car/b", "valid"):
        pictures(tmp_path / place, {"": 3})
    with pytest.raises(DataError, match="test: there is no such folder"):
        Folder(str(tmp_path)).read()
    (tmp_path / "train/a").rename(tmp_path / "train/b")
    for file in (tmp_path / "train/b").iterdir():
        file.rename(tmp_path / "train" / file.name)
    (tmp_path / "train/b").rmdir()
    source = Folder(str(tmp_path))
    train, test = source.read()
    assert (source.class_names, len(train) + len(test)) == (["car", "train", "valid"], 12)


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    """Each folder once, whatever links lead to it, and never to where the search began or what that is in."""
    pictures(tmp_path / "elsewhere", {"a": 2, "a/deep": 1})
    data = pictures(tmp_path / "data", {"x": 2, "y": 2})
    plain = find_pictures(data / "x")
    (data / "x/linked").symlink_to(tmp_path / "elsewhere/a")
    (data / "x/again").symlink_to(tmp_path / "elsewhere/a/deep")
    targets: dict[str, str | Path] = {"self": data / "x", "up": data, "root": "/", "gone": "nothing", "me": "me"}
    for name, target in targets.items():
        (data / "x" / name).symlink_to(target)
    (tmp_path / "elsewhere/a/back").symlink_to(data / "x")
    found = find_pictures(data / "x")
    assert len(found) == len({os.path.realpath(path) for path in found}) == 5
    assert set(plain) < set(found)
    train, test = Folder(str(data)).read()
    assert len(train) + len(test) == 7
    (tmp_path / "link").symlink_to(data)
    assert [path.relative_to(tmp_path / "link/x") for path in find_pictures(tmp_path / "link/x")] == [
        path.relative_to(data / "x") for path in found
    ]


def test_prediction_follows_links(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures(tmp_path / "elsewhere", {"a": 2})
    (tmp_path / "asked").mkdir()
    (tmp_path / "asked/link").symlink_to(tmp_path / "elsewhere")
    predict.main([str(trained), str(tmp_path / "asked"), "--json"])
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["path"] for answer in answers] == [str(tmp_path / f"asked/link/a/{n}.png") for n in (0, 1)]
