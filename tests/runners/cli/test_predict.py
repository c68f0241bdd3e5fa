"""predict.py and runners.evaluate on a network that was trained on real digits."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from runners.cli import evaluate, predict
from runners.data.sources.idx import Idx, Mnist
from runners.pictures.digits import prepare_digit
from runners.pictures.reading import read_picture
from runners.prediction import Predictor
from runners.tasks import figures
from tests.runners.conftest import Run
from tools.small_runs import write_dataset

MNIST = Mnist().path


def as_it_is(image: Any, file: Path) -> None:
    Image.fromarray(image).save(file.with_suffix(".png"))


def inverted(image: Any, file: Path) -> None:
    Image.fromarray(255 - image).save(file.with_suffix(".png"))


def large_jpeg(image: Any, file: Path) -> None:
    Image.fromarray(image).resize((280, 280), Image.Resampling.BICUBIC).save(file.with_suffix(".jpg"))


def in_a_corner(image: Any, file: Path) -> None:
    page = np.zeros((140, 100), np.uint8)
    page[-28:, -28:] = image
    Image.fromarray(page).save(file.with_suffix(".png"))


@pytest.mark.parametrize("draw", [as_it_is, inverted, large_jpeg, in_a_corner])
def test_two_hundred_digits(
    draw: Any, trained: Path, digits: tuple[Any, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(200):
        draw(digits[0][index], tmp_path / f"{index:03d}")
    assert predict.main([str(trained), str(tmp_path), "--json"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [int(Path(answer["path"]).stem) for answer in answers] == list(range(200))
    right = sum(int(answer["label"]) == label for answer, label in zip(answers, digits[1], strict=False))
    assert right >= 190
    assert all(answer["inverted"] == (draw is inverted) for answer in answers)


def test_digits_of_mnist_are_prepared_into_themselves(digits: tuple[Any, Any]) -> None:
    differences = [
        np.abs(prepare_digit(Image.fromarray(image), (1, 28, 28)).pixels[0] - image / 255.0).max()
        for image in digits[0][:300]
    ]
    assert np.median(differences) < 1e-6  # a faint edge, or a centre near the middle of two pixels, moves the others
    assert np.mean(np.array(differences) < 0.15) > 0.85


def test_what_is_printed(
    trained: Path, digits: tuple[Any, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    as_it_is(digits[0][0], tmp_path / "seven")
    file = str(tmp_path / "seven.png")
    assert predict.main([str(trained), file]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Predicted Number: 7"
    assert len(lines) == 5
    assert lines[4] == "  (cropped to 16x20 at 6,7)"
    assert predict.main([str(trained), file, "--top", "10", "--checkpoint", "last"]) == 0
    shares = [float(line.split()[1].rstrip("%")) for line in capsys.readouterr().out.splitlines()[1:-1]]
    assert len(shares) == 10
    assert sum(shares) == pytest.approx(100, abs=0.1)
    assert shares == sorted(shares, reverse=True)
    assert predict.main([str(trained / "checkpoints" / "best.pkl"), file, file]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"{file}: Predicted Number: 7 (")


def test_one_bad_picture_does_not_stop_the_others(
    trained: Path, digits: tuple[Any, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    as_it_is(digits[0][0], tmp_path / "seven")
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "cut.png").write_bytes((tmp_path / "seven.png").read_bytes()[:100])
    Image.new("L", (28, 28), 130).save(tmp_path / "blank.png")
    names = ["text.png", "empty.png", "cut.png", "blank.png", "missing.png", "seven.png"]
    paths = [str(tmp_path / name) for name in names]
    assert predict.main([str(trained), *paths]) == 2
    out, err = capsys.readouterr()
    assert out.startswith(f"{paths[-1]}: Predicted Number: 7")
    lines = err.splitlines()
    for name, line in zip(paths, lines, strict=False):
        assert line.startswith(f"error: {name}: ")
    assert "nothing is drawn on it" in lines[3]
    assert "there is no such file" in lines[4]
    assert predict.main([str(trained), *paths, "--json"]) == 2
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["path"] for answer in answers] == paths
    assert ["error" in answer for answer in answers] == [True] * 5 + [False]


@pytest.mark.parametrize("arguments", [["/no/such/run", "x.png"], ["{folder}", "x.png"], ["{run}", "{folder}"]])
def test_bad_arguments(arguments: list[str], trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [argument.format(run=trained, folder=tmp_path) for argument in arguments]
    assert predict.main(given) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_pictures_of_many_kinds(trained: Path, digits: tuple[Any, Any], tmp_path: Path) -> None:
    """Formats, colours, depth, transparency and orientation don't change what a digit is."""
    seven = Image.fromarray(digits[0][0]).resize((84, 84), Image.Resampling.BICUBIC)
    drawn = np.asarray(seven)
    transparent = np.zeros((84, 84, 4), np.uint8)
    transparent[..., 3] = drawn  # black ink on nothing
    white_ink = transparent.copy()
    white_ink[..., :3] = 255
    upside_down = seven.rotate(180)
    exif = Image.Exif()
    exif[0x0112] = 3
    pictures = {
        "a.bmp": seven,
        "b.gif": seven.convert("P"),
        "c.tiff": seven,
        "d.webp": seven.convert("RGB"),
        "e.png": Image.fromarray(drawn.astype(np.uint16) * 200),
        "f.png": Image.fromarray(transparent),
        "g.png": Image.fromarray(white_ink),
        "h.jpg": Image.fromarray(255 - drawn).convert("CMYK"),
        "i.png": seven.convert("1"),
        "j.png": Image.fromarray(np.stack([40 + drawn // 2, 40 + drawn // 3, np.full_like(drawn, 40)], -1)),
    }
    for name, picture in pictures.items():
        picture.save(tmp_path / name)
    upside_down.save(tmp_path / "k.jpg", exif=exif)
    (tmp_path / "l.anything").write_bytes((tmp_path / "a.bmp").read_bytes())
    original = prepare_digit(seven, (1, 28, 28)).pixels
    for file in sorted(tmp_path.iterdir()):
        prepared = prepare_digit(read_picture(file), (1, 28, 28)).pixels
        assert np.corrcoef(prepared.ravel(), original.ravel())[0, 1] > 0.95, file.name


def test_noise_is_not_taken_for_ink(trained: Path, digits: tuple[Any, Any], tmp_path: Path) -> None:
    """Thousands of specks on a large picture: found in one pass, and left out."""
    generator = np.random.default_rng(0)
    predictor = Predictor.load(str(trained))
    right = 0
    for image, label in zip(digits[0][:20], digits[1][:20], strict=True):
        page = np.full((900, 900), 128.0)
        page[200:760, 200:760] -= np.asarray(Image.fromarray(image).resize((560, 560))) / 2.5
        page += generator.normal(0, 6, page.shape)
        Image.fromarray(page.clip(0, 255).astype(np.uint8)).save(tmp_path / "page.png")
        right += predictor.predict(tmp_path / "page.png").ranking[0][0] == str(label)
    assert right >= 18


@pytest.mark.figures
def test_class_names_with_dollars_are_drawn(run: Run) -> None:
    assert run("run_dir=first", "epochs=1", "data.class_names=[$a,b$,c]") == 0
    assert Path("first/figures/confusion.png").exists()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "names",
    [
        ["$a", "b$", r"$\frac{$"],
        ["a\tb", "\x1b[31mred", "a\nb"],
        ["x" * 250, "$" * 250, "犬" * 250],
        ["犬", "😀", "\udcff"],
    ],
    ids=["dollars", "control characters", "long", "no glyphs"],
)
def test_odd_class_names_are_drawn_without_a_warning(names: list[str], striped: Path) -> None:
    dataset = Idx(str(striped), val_examples=50, class_names=names).load()
    confusion = figures.confusion(torch.ones(3, 3, dtype=torch.int64), names)
    mistakes = figures.mistakes(dataset, (dataset.test.targets + 1) % 3)
    assert mistakes
    for figure in (confusion, mistakes):
        figure.savefig(io.BytesIO())


def test_named_classes_and_plain_pictures(
    run: Run, striped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("run_dir=first", "epochs=8", "data.class_names=[rows,columns,neither]") == 0
    image = np.full((40, 40, 3), 30, np.uint8)
    image[np.arange(40) // 4 % 2 == 0] = 160
    Image.fromarray(image).save(tmp_path / "picture.png")
    capsys.readouterr()
    assert predict.main(["first", str(tmp_path / "picture.png")]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "Predicted: rows"


def test_volumes_take_no_pictures(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_dataset(tmp_path / "volumes", (8, 8, 8))
    assert run("model=conv3d", "model.classes=3", f"data.path={folder}", "run_dir=first", "epochs=1") == 0
    capsys.readouterr()
    assert predict.main(["first", "x.png"]) == 2
    told = "its network takes [1, 8, 8, 8], pictures are [1 or 3 channels, height, width]; python -m runners.evaluate"
    assert told in capsys.readouterr().err


def test_evaluate_repeats_the_runs_test(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = json.loads((trained / "summary.json").read_text())
    assert evaluate.main([str(trained), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["test/accuracy"] == summary["test"]["test/accuracy"]
    assert found["test/loss"] == pytest.approx(summary["test"]["test/loss"], rel=1e-6)
    assert np.sum(found["confusion"]) == 10000
    assert np.trace(found["confusion"]) == round(found["test/accuracy"] * 10000)
    assert evaluate.main([str(trained), "data=idx", f"data.path={MNIST}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("idx: 10,000 test examples, accuracy ")
    assert len(lines) == 12


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["data=idxx"], "data: unknown 'idxx', did you mean idx?"),
        (["epochs=3"], "epochs: only data=NAME and data.KEY=VALUE can be changed here"),
        (["data=idx"], "data.path: must be given: data.path=..."),
        (["data=idx", "data.path=/no/where"], "data.path: there is no directory /no/where"),
        (["data.num=3"], "data.num: unknown"),
    ],
)
def test_evaluate_names_mistakes(
    overrides: list[str], expected: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main([str(trained), *overrides]) == 2
    assert expected in capsys.readouterr().err


def test_evaluate_refuses_other_shapes(trained: Path, striped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main([str(trained), "data=idx", f"data.path={striped}"]) == 2
    assert "the test images are [1, 10, 10], but the network takes [1, 28, 28]" in capsys.readouterr().err
