"""runners.evaluate on folders of pictures: prepared as predict.py does it, and all of them if they are others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from runners.cli import evaluate, predict
from tests.runners.conftest import Run
from tests.runners.data.small_data import pictures

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def drawn(digits: tuple[Any, Any], tmp_path: Path) -> Path:
    """Three hundred of MNIST's test digits, dark on a white page, in a folder for each class."""
    random = np.random.default_rng(0)
    for number, (image, label) in enumerate(zip(digits[0][:300], digits[1][:300], strict=True)):
        page = np.full((112, 112), 235.0)
        page[14:98, 14:98] -= 0.8 * np.asarray(Image.fromarray(image).resize((84, 84), Image.Resampling.BICUBIC))
        page += random.normal(0, 4, page.shape)
        file = tmp_path / "drawn" / str(label) / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(page.clip(0, 255).astype(np.uint8)).save(file)
    return tmp_path / "drawn"


def evaluated(capsys: Capture, *arguments: str) -> dict[str, Any]:
    assert evaluate.main([*arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_evaluation_reads_pictures_as_prediction_does(trained: Path, drawn: Path, capsys: Capture) -> None:
    assert predict.main([str(trained), str(drawn), "--json"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    predicted = np.mean([answer["label"] == Path(answer["path"]).parent.name for answer in answers])
    assert predicted > 0.9
    data = ("data=folder", f"data.path={drawn}")
    found = evaluated(capsys, str(trained), *data)
    assert np.sum(found["confusion"]) == 300
    assert abs(found["test/accuracy"] - predicted) <= 0.01
    assert found["notes"] == [
        f"all pictures in {drawn} are for the test",
        "each picture is found, cropped and centred as a digit, light on dark, to 28x28 pixels in grey",
    ]
    assert evaluate.main([str(trained), *data]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("folder: 300 test examples, accuracy ")
    assert lines[1:3] == [f"note: {note}" for note in found["notes"]]
    plain = evaluated(capsys, str(trained), *data, "data.preparation=plain", "data.channels=1", "data.test_share=0.2")
    assert np.sum(plain["confusion"]) == pytest.approx(60, abs=5)
    assert plain["test/accuracy"] < 0.6
    assert plain["notes"] == ["each picture is resized whole to 28x28 pixels in grey"]


def test_one_class_alone_can_be_evaluated(trained: Path, drawn: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "sevens").mkdir()
    (drawn / "7").rename(tmp_path / "sevens" / "7")
    found = evaluated(capsys, str(trained), "data=folder", f"data.path={tmp_path / 'sevens'}")
    assert found["test/accuracy"] > 0.9


def test_a_picture_that_shows_nothing_is_named(trained: Path, drawn: Path, capsys: Capture) -> None:
    Image.new("L", (50, 50), 200).save(drawn / "3" / "blank.png")
    assert evaluate.main([str(trained), "data=folder", f"data.path={drawn}"]) == 2
    assert capsys.readouterr().err == f"error: {drawn / '3' / 'blank.png'}: nothing is drawn on it\n"


def test_what_a_run_was_tested_on_stays_its_test(run: Run, tmp_path: Path, capsys: Capture) -> None:
    """Of the run's own folder, wherever it is; all pictures of another one, unless it has a split."""
    own = pictures(tmp_path / "own", {"a": 20, "b": 20, "c": 20})
    other = pictures(tmp_path / "other", {"a": 5, "c": 1})
    for part, count in (("train", 7), ("test", 3)):
        pictures(tmp_path / "split" / part, {"a": count, "b": count})
    split = ("data.test_share=0.25", "data.split_seed=3")
    data = ("data=folder", f"data.path={own}", "data.val_examples=5", "data.size=[9,7]", *split)
    assert run(*data, "run_dir=first") == 0
    capsys.readouterr()
    (tmp_path / "moved").symlink_to(own)
    (tmp_path / "copied").mkdir()
    for folder in own.iterdir():
        (tmp_path / "copied" / folder.name).symlink_to(folder)
    for arguments, count in (
        ([], 15),
        ([f"data.path={own}"], 15),
        (["data=folder", f"data.path={own}"], 15),
        (["data=folder", f"data.path={tmp_path / 'moved'}"], 15),
        ([f"data.path={tmp_path / 'copied'}"], 15),
        ([f"data.path={own}", "data.test_share=1"], 60),
        (["data=folder", f"data.path={other}"], 6),
        (["data=folder", f"data.path={tmp_path / 'split'}"], 6),
    ):
        found = evaluated(capsys, "first", *arguments)
        assert np.sum(found["confusion"]) == count, arguments
        if count == 15:
            assert found["test/loss"] == evaluated(capsys, "first")["test/loss"]
        assert found["notes"][-1] == "each picture is resized whole to 9x7 pixels in colour"


def test_photographed_digits_can_be_trained_on(run: Run, drawn: Path, capsys: Capture) -> None:
    data = ("data=folder", f"data.path={drawn}", "data.val_examples=30", "data.channels=1")
    assert run(*data, "data.test_share=1") == 2
    assert (
        capsys.readouterr().err == "error: data.test_share: 1 is not allowed, as it leaves no pictures for training\n"
    )
    assert run(*data, "data.preparation=digit", "model.classes=10", "model=seed8", "epochs=1", "run_dir=first") == 0
    capsys.readouterr()
    assert predict.main(["first", str(drawn / "0"), "--json"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(answer["inverted"] for answer in answers)
