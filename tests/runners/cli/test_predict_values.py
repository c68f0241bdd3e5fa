"""predict.py on tasks that name no classes: what a network makes of pictures, values, and what doesn't apply."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from runners.files import checkpoint
from runners.tasks.registry import saved_task
from tests.runners.cli.test_drawing import call, pixels
from tests.runners.small_tasks import KINDS, VAE, untrained
from tools.small_runs import write_dataset

Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("vae --samples 5", "--samples: say where to write them: --out FILE for a grid, --walk FILE.gif for a walk"),
        ("vae --samples 5 --out x.tif", "--out: x.tif is not allowed, give a name that ends in .png, .jpg, .jpeg or"),
        ("vae --samples 5 --out x", "--out: x is not allowed, give a name that ends in .png, .jpg, .jpeg or .webp"),
        ("vae --samples 5 --out x.gif", "--out: x.gif is not allowed"),
        ("vae --walk x.png", "--walk: x.png is not allowed, give a name that ends in .gif"),
        ("vae --samples 5 --out no/x.png", "--out: there is no folder "),
        ("vae --samples 5 --out painted", "--out: painted is a folder, give the name of a picture in it"),
        ("vae --samples 5 --out x.png --class 1", "--class: {vae}/checkpoints/best.pkl was trained without classes"),
        ("conditional --walk x.gif --class dwn", "--class: unknown 'dwn', did you mean down? (known: across, down"),
        ("vae painted --samples 5 --out x.png", "--samples draws from noise and takes no pictures, leave out painted"),
        ("gan painted --walk x.gif", "--walk draws from noise and takes no pictures, leave out painted"),
        ("vae painted --seed 5 --out x", "--seed is for pictures from noise, give it with --samples or --walk"),
        ("vae painted --class 5 --out x", "--class is for pictures from noise, give it with --samples or --walk"),
        (
            "denoiser --samples 5 --out x.png",
            "{denoiser} has nothing to draw from noise: the task regression makes pictures of pictures "
            "({denoiser} IMAGE --out FILE)",
        ),
        (
            "gan painted/a.png",
            "{gan} takes no pictures: the task gan draws pictures from noise ({gan} --samples N --out FILE)",
        ),
        (
            "vae painted/a.png",
            "--out is missing: the task vae makes pictures of pictures ({vae} IMAGE --out FILE), and draws pictures "
            "from noise ({vae} --samples N --out FILE)",
        ),
        ("denoiser painted", "--out is missing: the task regression makes pictures of pictures"),
        ("number painted --out x.png", "--out: {number} makes no pictures: the task regression gives values for"),
        ("number painted --top 2", "--top: {number} has no classes to rank: the task regression gives values"),
        ("vae painted --out x --top 2", "--top: {vae} has no classes to rank"),
        ("gan --samples 3 --out x.png --top 2", "--top: {gan} has no classes to rank"),
        ("denoiser painted --out x.png", "--out: x.png is the name of one picture, for several give that of a folder"),
        ("denoiser painted/a.png painted/b.jpg --out x.png", "--out: x.png is the name of one picture, for several"),
        ("denoiser painted --out painted/b.jpg", "--out: painted/b.jpg is the name of one picture, for several give"),
        ("denoiser painted --out no/x", "--out: there is no folder "),
        ("denoiser painted/a.png --out x.tif", "--out: x.tif is not allowed, give a name that ends in .png"),
        ("denoiser painted/a.png --out painted/a.png", "--out: painted/a.png is one of the pictures that are read"),
        ("denoiser painted --out painted", "--out: painted/a.png is one of the pictures that are read, give another"),
        (
            "denoiser painted/a.png painted/more/a.png --out x",
            "--out: painted/a.png and painted/more/a.png would both become x/a.png: rename one",
        ),
    ],
)
def test_what_is_refused_in_one_line(arguments: str, told: str, runs: Path, painted: Path, capsys: Capture) -> None:
    before = sorted(Path().rglob("*"))
    kind, *others = arguments.split()
    assert call(runs / kind, *others) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith(f"error: {told.format(**{name: runs / name for name in KINDS})}")
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize("option", ["--out", "--walk"])
def test_an_empty_name(option: str, runs: Path, painted: Path, capsys: Capture) -> None:
    assert call(runs / "vae", "--samples", 5, option, "") == 2
    assert call(runs / "vae", painted, "--out", "") == 2
    lines = capsys.readouterr().err.splitlines()
    problem = "the name is empty, perhaps from a shell variable that isn't set"
    assert lines == [f"error: {option}: {problem}", f"error: --out: {problem}"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--samples", "0", "--out", "x.png"], "--samples: 0 is not allowed, give a whole number from 1 to 10,000"),
        (["--samples", "10001", "--out", "x.png"], "--samples: 10001 is not allowed"),
        (["--samples", "5", "--seed", "-1", "--out", "x.png"], "--seed: -1 is not allowed, give a whole number >= 0"),
        (["--seed", "1" * 10, "--walk", "x.gif"], "--seed: 1111111111 is not allowed"),
        (["--out", "x.png"], "the following arguments are required: images"),
    ],
)
def test_numbers_are_checked_by_the_parser(arguments: list[str], told: str, runs: Path, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as exit_code:
        call(runs / "vae", *arguments)
    assert exit_code.value.code == 2
    assert told in capsys.readouterr().err


def test_a_classifier_draws_nothing(trained: Path, capsys: Capture) -> None:
    does = f"the task classification names the classes of pictures ({trained} IMAGE)"
    assert call(trained, "--samples", 5, "--out", "x.png") == 2
    assert call(trained, "x.png", "--out", "y.png") == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"error: {trained} has nothing to draw from noise: {does}"
    assert lines[1] == f"error: --out: {trained} makes no pictures: {does}"


def reconstructed(run: Path, file: Path) -> Any:
    task = saved_task(checkpoint.load_run(run))
    x = torch.from_numpy(pixels(file).astype(np.float32) / 255)[None, ..., None]
    return (task.predict(x).clamp(0, 1)[0, ..., 0] * 255).numpy()


@pytest.mark.parametrize("kind", ["denoiser", "vae"])
def test_what_a_network_makes_of_a_picture(kind: str, runs: Path, painted: Path, capsys: Capture) -> None:
    assert call(runs / kind, painted / "a.png", "--out", "clean.png") == 0
    assert capsys.readouterr() == ("painted/a.png: clean.png\n", "")
    assert np.abs(pixels("clean.png") - reconstructed(runs / kind, painted / "a.png")).max() <= 0.51
    Path("there").mkdir()
    assert call(runs / kind, painted / "a.png", "--out", "there", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["path"], told["out"], told["size"]) == ("painted/a.png", "there/a.png", [10, 10])
    assert Path("there/a.png").read_bytes() == Path("clean.png").read_bytes()


def test_a_folder_of_pictures_keeps_its_subfolders(runs: Path, painted: Path, capsys: Capture) -> None:
    (painted / "text.png").write_text("no picture")
    assert call(runs / "denoiser", painted, "missing.png", "", "--out", "clean") == 2
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "painted/a.png: clean/a.png",
        "painted/b.jpg: clean/b.png",
        "painted/more/a.png: clean/more/a.png",
    ]
    assert [line.split(": ")[1] for line in err.splitlines()][:2] == ["painted/text.png", "missing.png"]
    assert call(runs / "denoiser", painted / "more/a.png", "--out", "alone.png") == 0
    assert Path("alone.png").read_bytes() == Path("clean/more/a.png").read_bytes()
    capsys.readouterr()
    assert call(runs / "denoiser", painted, "--out", "clean") == 2  # again, over the files that are there
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_the_same_picture_twice_and_one_from_the_standard_input(
    runs: Path, painted: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO((painted / "a.png").read_bytes())))
    assert call(runs / "denoiser", painted / "a.png", "-", painted / "a.png", "--out", "clean") == 0
    assert Path("clean/stdin.png").read_bytes() == Path("clean/a.png").read_bytes()
    assert capsys.readouterr().out.splitlines()[1] == "-: clean/stdin.png"


def test_values_are_printed(runs: Path, painted: Path, capsys: Capture) -> None:
    task = saved_task(checkpoint.load_run(runs / "number"))
    x = torch.from_numpy(pixels(painted / "a.png").astype(np.float32) / 255)[None, ..., None]
    expected = float(task.predict(x))
    assert call(runs / "number", painted) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in out] == [f"painted/{name}" for name in ("a.png", "b.jpg", "more/a.png")]
    assert float(out[0].partition(": ")[2]) == pytest.approx(expected, rel=1e-4)
    (painted / "text.png").write_text("no picture")
    assert call(runs / "number", painted / "a.png", painted / "text.png", "--json") == 2
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["path"] == "painted/a.png"
    assert first["values"] == pytest.approx([expected], rel=1e-4)
    assert first["size"] == [10, 10]
    assert set(second) == {"path", "error"}


def test_vectors_are_printed_as_lists(
    runs: Path, painted: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = torch.tensor([[0.1], [2.3]])
    monkeypatch.setattr("runners.tasks.regression.Regression.predict", lambda task, x: values.expand(2, x.shape[-1]))
    assert call(runs / "number", painted / "a.png") == 0
    assert capsys.readouterr().out == "painted/a.png: [0.1, 2.3]\n"


def test_an_output_that_is_not_finite_is_one_line(
    runs: Path, painted: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runners.tasks.vae.logistic", lambda x: x * torch.inf)
    assert call(runs / "vae", "--samples", 2, "--out", "x.png") == 2
    assert call(runs / "vae", painted, "--out", "x") == 2
    for line in capsys.readouterr().err.splitlines():
        assert line == f"error: {runs}/vae/checkpoints/best.pkl: its network's output is infinite or NaN"
    assert not Path("x.png").exists()


@pytest.mark.parametrize("shape", [(8, 8, 8)])
def test_volumes_are_not_drawn(shape: tuple[int, ...], tmp_path: Path, painted: Path, capsys: Capture) -> None:
    data = write_dataset(tmp_path / "volumes", shape)
    decoder = {"layers": [{"linear": {"out_features": 512}}, {"reshape": {"shape": [1, *shape]}}]}
    run = untrained({**VAE, "decoder": decoder}, data, tmp_path / "run")
    assert call(run, "--samples", 2, "--out", "x.png") == 2
    assert call(run, painted, "--out", "x") == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("its samples are [1, 8, 8, 8], pictures are [1 or 3 channels, height, width]")
    assert "its network takes [1, 8, 8, 8], pictures are [1 or 3 channels, height, width]" in second
