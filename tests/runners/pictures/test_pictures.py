"""What predict.py says of pictures of every sort, and what it did to them. Each is a seven, if it can be read."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runners.cli import predict
from runners.pictures.reading import read_picture
from runners.prediction import Predictor
from tests.runners.data.small_data import forbid
from tests.runners.pictures.odd_pictures import (
    NOT_A_FILE,
    NOT_A_PICTURE,
    PAPER,
    READ,
    REFUSED,
    SEVEN,
    encoded,
    on_page,
    saved,
    several,
    turned,
    with_alpha,
    written,
)
from tools import photos

ROOT = Path(__file__).parents[3]
Capture = pytest.CaptureFixture[str]
KEYS = {
    *("path", "label", "probability", "top"),
    *("size", "orientation", "background", "white", "more_frames", "inverted", "cropped", "pieces"),
}


@pytest.mark.parametrize("kind", READ)
def test_pictures_that_are_read(kind: str, trained: Path, tmp_path: Path, capsys: Capture) -> None:
    make, expected = READ[kind]
    path = make(tmp_path)
    assert predict.main([str(trained), str(path), "--json"]) == 0
    out, err = capsys.readouterr()
    (answer,) = (json.loads(line) for line in out.splitlines())
    assert answer["label"] == "7"
    assert answer.items() >= expected.items()
    assert answer.keys() == KEYS
    assert Path(answer["path"]).is_relative_to(path)
    assert err == ""


@pytest.mark.parametrize("kind", REFUSED)
def test_pictures_that_are_refused(
    kind: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    make, expected = REFUSED[kind]
    path = make(tmp_path)
    assert predict.main([str(trained), str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {path}: {expected}")
    assert len(err.splitlines()) == 1
    assert predict.main([str(trained), str(path), "--json"]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out) == {"path": str(path), "error": json.loads(out)["error"]}
    assert json.loads(out)["error"].startswith(expected)
    assert err == ""


def test_a_picture_that_may_not_be_read(trained: Path, tmp_path: Path, capsys: Capture) -> None:
    file = written(encoded(SEVEN))(tmp_path)
    file.chmod(0)
    if os.access(file, os.R_OK):
        pytest.skip("this user may read everything")
    assert predict.main([str(trained), str(file)]) == 2
    assert capsys.readouterr().err == f"error: {file}: can't be read: Permission denied\n"


def test_a_folder_that_may_not_be_read(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Alone, and among pictures, which are read all the same."""
    closed = tmp_path / "more" / "b"
    closed.mkdir(parents=True)
    for name in "ac":
        saved(SEVEN, f"{name}.png")(closed.parent)
    forbid(monkeypatch, closed)
    for given, read in ((closed, 0), (closed.parent, 2)):
        assert predict.main([str(trained), str(given)]) == 2
        out, err = capsys.readouterr()
        assert err == f"error: {closed}: can't be read: Permission denied\n"
        assert len(out.splitlines()) == read


def test_an_empty_name_is_not_the_working_directory(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("asked.png", "not-asked.png"):
        saved(SEVEN, name)(tmp_path)
    told = "the name of a picture is empty, perhaps from a shell variable that isn't set"
    assert predict.main([str(trained), "", "asked.png"]) == 2
    out, err = capsys.readouterr()
    assert err == f"error: {told}\n"
    assert out.startswith("asked.png: Predicted Number: 7")
    assert len(out.splitlines()) == 1
    assert predict.main([str(trained), "", "--json"]) == 2
    assert json.loads(capsys.readouterr().out) == {"path": "", "error": told}


COUNTS = {
    "0": "0 is not allowed, give a whole number >= 1",
    "-1": "-1 is not allowed, give a whole number >= 1",
    "2.5": "2.5 is not allowed, give a whole number >= 1",
    "two": "two is not allowed, give a whole number >= 1",
    "²": "² is not allowed, give a whole number >= 1",
    "9" * 5000: f"{'9' * 37}... is not allowed, give a whole number >= 1 of at most 9 digits",
}


@pytest.mark.parametrize("count", COUNTS)
def test_bad_counts(count: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        predict.main(["no/run", "a.png", "--top", count])
    assert ended.value.code == 2
    assert f"error: argument --top: {COUNTS[count]}" in capsys.readouterr().err


def test_bad_pictures_do_not_stop_the_others(trained: Path, tmp_path: Path, capsys: Capture) -> None:
    """Answers come in the order in which the pictures were named; a picture named twice is answered twice."""
    good = str(saved(SEVEN, "good.png")(tmp_path))
    (tmp_path / "folder").mkdir()
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for name, content in {"b.png": encoded(PAPER), "a.png": b"text", "c.txt": b"text"}.items():
        (mixed / name).write_bytes(content)
    os.mkfifo(mixed / "d.jpg")
    given = [str(tmp_path / "folder"), good, str(tmp_path / "missing"), str(mixed), good]
    assert predict.main([str(trained), *given, "--json"]) == 2
    out, err = capsys.readouterr()
    answers = [json.loads(line) for line in out.splitlines()]
    asked = [given[0], good, given[2], str(mixed / "a.png"), str(mixed / "b.png"), str(mixed / "d.jpg"), good]
    assert [answer["path"] for answer in answers] == asked
    reasons = ["a folder without pictures", None, "there is no such file", NOT_A_PICTURE, None, NOT_A_FILE, None]
    assert [answer.get("error") for answer in answers] == reasons
    assert err == ""
    assert predict.main([str(trained), *given]) == 2
    out, err = capsys.readouterr()
    assert [line.split(": ")[:2] for line in out.splitlines()] == [
        [path, "Predicted Number"] for path in (good, str(mixed / "b.png"), good)
    ]
    assert err.splitlines() == [
        f"error: {path}: {reason}" for path, reason in zip(asked, reasons, strict=True) if reason
    ]


def test_what_was_done_is_said(trained: Path, tmp_path: Path, capsys: Capture) -> None:
    for make, expected in (
        (turned(6), "  (turned upright, inverted, cropped to 50x62 at 17,20)"),
        (several("gif"), "  (first of several frames, cropped to 50x62 at 17,20)"),
        (saved(with_alpha(0, "RGBA"), "a.png"), "  (on a white background, inverted, cropped to 50x62 at 17,20)"),
        (saved(on_page((200, 84), (30, 0)), "b.png"), "  (inverted, cropped to 50x62 at 47,20)"),
    ):
        assert predict.main([str(trained), str(make(tmp_path)), "--top", "1"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "Predicted Number: 7"
        assert lines[1].startswith("  7  ")
        assert lines[2:] == [expected]


def test_several_digits_are_said_to_be_pieces(trained: Path, tmp_path: Path, capsys: Capture) -> None:
    page = on_page((300, 140), (40, 20))
    page.paste(PAPER, (110, 20))
    path = str(saved(page, "two.png")(tmp_path))
    assert predict.main([str(trained), path, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["pieces"] == 2
    assert answer["cropped"] == pytest.approx([57, 40, 177, 102], abs=2)
    assert predict.main([str(trained), path]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(", 2 pieces joined into one digit)")


def test_dirt_and_far_away_things_are_left_out(trained: Path, tmp_path: Path, capsys: Capture) -> None:
    page = on_page((600, 600), (100, 100), PAPER.resize((168, 168)))
    for left, top in ((500, 500), (20, 560), (300, 120)):
        page.paste(0, (left, top, left + 8, top + 8))
    page.paste(0, (520, 40, 560, 90))
    assert predict.main([str(trained), str(saved(page, "a.png")(tmp_path)), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["label"], answer["pieces"]) == ("7", 1)
    assert answer["cropped"] == pytest.approx([133, 140, 235, 265], abs=3)


def test_odd_names_are_printed_on_one_line_of_any_encoding(trained: Path, tmp_path: Path) -> None:
    """In a process, whose output has an encoding: here one that knows neither umlauts nor lone surrogates."""
    names = ["a\nb.png", "größe.png", os.fsdecode(b"\xff.png"), "\x1b[31mred.png"]
    for name in names:
        written(encoded(SEVEN), name)(tmp_path)
    command = [sys.executable, str(ROOT / "predict.py"), str(trained), *names, "no\nfile"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    shown = [line.split(": Predicted")[0] for line in done.stdout.splitlines()]
    assert shown == [r"a\nb.png", r"gr\xf6\xdfe.png", r"\udcff.png", r"\x1b[31mred.png"]
    assert done.stderr == "error: no\\nfile: there is no such file\n"


MEMORY = """
import re, sys
from pathlib import Path
from runners.pictures.reading import read_picture
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
for path in sys.argv[1:]:
    read_picture(Path(path))
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of the memory is in /proc")
def test_huge_pictures_are_not_in_memory_twice(tmp_path: Path) -> None:
    """However they are stored: 25 megapixels take their four bytes each, and what is smaller."""
    upright = Image.Exif()
    upright[0x0112] = 6
    for mode in ("RGBA", "LA", "I;16"):
        Image.new(mode, (5000, 5000)).save(tmp_path / f"{mode}.png", compress_level=1, exif=upright)
    Image.new("P", (5000, 5000)).save(tmp_path / "palette.png", transparency=0)
    for mode in ("F", "CMYK"):
        Image.new(mode, (5000, 5000)).save(tmp_path / f"{mode}.tiff", compression="tiff_lzw")
    command = [sys.executable, "-c", MEMORY, *map(str, tmp_path.iterdir())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) < 2.4 * 4 * 5000**2


def test_shrinking_by_strips_is_shrinking(tmp_path: Path) -> None:
    """The last strip is a low one, and an edge of what is transparent has the colour of the rest."""
    rows, columns = np.indices((4998, 900)) / 5000
    light = np.stack([255 * rows, 1200 * columns, 128 * rows + 99, 255 * (rows > 6 * columns)], -1).astype(np.uint8)
    for mode in ("RGBA", "RGB", "L"):
        picture = Image.fromarray(light).convert(mode)
        path = saved(picture, "large.png", compress_level=1)(tmp_path)
        found = read_picture(path)
        picture.thumbnail((1024, 1024))
        if mode == "RGBA":
            page = Image.new("RGBA", picture.size, str(found.info["background"]))
            picture = Image.alpha_composite(page, picture).convert("RGB")
        assert found.size == picture.size
        assert np.abs(np.asarray(found, float) - np.asarray(picture, float)).max() <= 2


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_progress_bar(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    for name in "abc":
        saved(SEVEN, f"{name}.png")(tmp_path)
    for argument, shown in ((tmp_path, 3), (tmp_path / "a.png", 0)):  # one picture needs no bar
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        assert predict.main([str(trained), str(argument), "--json"]) == 0
        assert ("/3 [" in terminal.getvalue()) == (shown == 3)
        assert len(capsys.readouterr().out.splitlines()) == max(shown, 1)


@pytest.mark.parametrize("missing", ["none", "left", "top", "right", "bottom"])
def test_the_box_around_a_digit_is_not_its_stroke(missing: str, trained: Path, tmp_path: Path, capsys: Capture) -> None:
    page = on_page((400, 400), (150, 150))
    left, top, right, bottom = (120 - 8, 120 - 8, 264 + 8, 264 + 8)
    lines = {
        "left": (left, top, left + 8, bottom),
        "top": (left, top, right, top + 8),
        "right": (right - 8, top, right, bottom),
        "bottom": (left, bottom - 8, right, bottom),
    }
    for side, line in lines.items():
        if side != missing:
            page.paste(20, line)
    assert predict.main([str(trained), str(saved(page, "a.png")(tmp_path)), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["label"], answer["pieces"]) == ("7", 1)
    assert answer["cropped"] == pytest.approx([167, 170, 217, 232], abs=3)


def test_photos_of_digits(trained: Path, tmp_path: Path) -> None:
    """A few of each kind, and small ones; `python -m tools.photos RUN` measures more, and prints a table."""
    images, labels = photos.digits()
    predictor = Predictor.load(str(trained))
    shares = {
        kind: photos.accuracy(predictor, photos.photos(kind, images[:3], sides=(300, 450)), labels, tmp_path)
        for kind in photos.KINDS
    }
    assert np.mean(list(shares.values())) > 0.85, shares
    assert min(shares.values()) > 0, shares
