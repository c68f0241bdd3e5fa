"""The pictures of a run: one after each epoch, the film of them, and the final ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runners.cli import train as command
from runners.files.run_directory import RunDirectory
from runners.signals import Interrupted
from runners.tasks import vae
from runners.training.pictures import MAX_FRAMES, evenly, write_pictures
from tests.runners.outcomes import stop_at_step_of
from tests.runners.small_tasks import DENOISER, VAE, train


def files(run: Path) -> dict[str, bytes]:
    figures = run / "figures"
    return {str(file.relative_to(figures)): file.read_bytes() for file in figures.rglob("*") if file.is_file()}


def frames(file: Path) -> int:
    with Image.open(file) as opened:
        return getattr(opened, "n_frames", 1)


@pytest.mark.figures
def test_a_run_keeps_a_picture_of_each_epoch(striped: Path, tmp_path: Path) -> None:
    run = train(VAE, striped, tmp_path / "a", epochs=3)
    samples = [f"samples/{number:04d}.png" for number in (1, 2, 3)]
    found = files(run)
    assert sorted(found) == ["curves.png", "samples.gif", "samples.png", *samples, "walk.gif"]
    assert frames(run / "figures/samples.gif") == 3
    assert frames(run / "figures/walk.gif") == 60
    assert len({found[name] for name in samples}) == 3
    best = json.loads((run / "summary.json").read_text())["best"]["epoch"]
    assert found["samples.png"] == found[samples[best - 1]]


@pytest.mark.figures
@pytest.mark.parametrize("step", [2, 5], ids=["in the first epoch", "in the second"])
def test_a_resumed_run_has_the_pictures_of_an_uninterrupted_one(
    step: int, striped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["run.py"])
    whole = train(VAE, striped, tmp_path / "whole", epochs=3)
    with monkeypatch.context() as patch:
        stop_at_step_of(vae.VAE, step, patch)
        with pytest.raises(Interrupted):
            train(VAE, striped, tmp_path / "a", epochs=3)
    (tmp_path / "a/figures/samples").mkdir(parents=True, exist_ok=True)
    leftover = tmp_path / "a/figures/samples/.0002.png.77.new"
    leftover.write_bytes(b"half a picture")
    assert command.main([f"resume={tmp_path / 'a'}"]) == 0
    assert files(tmp_path / "a") == files(whole)


def test_a_picture_that_a_killed_process_did_not_draw_is_made_up_for(
    striped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["run.py"])
    run = train(VAE, striped, tmp_path / "a", epochs=2)
    before = files(run)
    (run / "figures/samples/0002.png").unlink()
    assert command.main([f"resume={run}", "epochs=3"]) == 0
    after = files(run)
    assert {name: after[name] for name in before} == before
    assert len(after) == 3


def test_what_cannot_be_drawn_ends_no_run(
    striped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(task: vae.VAE) -> None:
        raise ValueError("no paint")

    monkeypatch.setattr(vae.VAE, "snapshot", broken)
    run = train(VAE, striped, tmp_path / "a")
    assert not (run / "figures").exists()
    assert (run / "run.log").read_text().count("Snapshots failed and is disabled: no paint") == 1
    assert json.loads((run / "status.json").read_text())["state"] == "done"


@pytest.mark.figures
def test_final_pictures_that_cannot_be_drawn_are_a_warning(
    striped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(task: vae.VAE) -> None:
        raise ValueError("no paint")

    monkeypatch.setattr(vae.VAE, "pictures", broken)
    run = train(VAE, striped, tmp_path / "a", epochs=1)
    assert "warning: the figures could not be drawn: no paint" in capsys.readouterr().err
    assert json.loads((run / "status.json").read_text())["state"] == "done"
    assert (run / "figures/curves.png").exists()


def test_tasks_without_a_picture_write_none(striped: Path, tmp_path: Path) -> None:
    run = train(DENOISER, striped, tmp_path / "a", epochs=1)
    assert not (run / "figures").exists()


def test_a_film_of_many_epochs_has_the_first_and_the_last(tmp_path: Path) -> None:
    class Nothing(vae.VAE):
        kind = "nothing"

        def pictures(self) -> dict[str, list[np.ndarray]]:  # type: ignore[type-arg]
            return {}

    (tmp_path / "a").mkdir()
    with RunDirectory(tmp_path / "a") as directory:
        write_pictures(Nothing(), directory)
        assert not (tmp_path / "a/figures").exists()
        for epoch in [*range(1, 9), 9_999, 10_000]:  # numbers of more digits come last
            picture = Image.new("L", (4, 4), min(epoch, 255) if epoch < 9_999 else epoch - 9_900)
            picture.save(tmp_path / "one.png")
            directory.write_snapshot(epoch, (tmp_path / "one.png").read_bytes())
        assert [int(file.stem) for file in directory.snapshots()] == [*range(1, 9), 9_999, 10_000]
        write_pictures(Nothing(), directory)
    with Image.open(tmp_path / "a/figures/samples.gif") as film:
        film.seek(9)
        assert film.convert("L").getpixel((0, 0)) == 100


@pytest.mark.parametrize("count", [1, 2, MAX_FRAMES - 1, MAX_FRAMES, MAX_FRAMES + 1, 1234])
def test_frames_are_chosen_evenly(count: int) -> None:
    chosen = evenly(count, MAX_FRAMES)
    assert len(chosen) == len(set(chosen)) == min(count, MAX_FRAMES)
    assert (chosen[0], chosen[-1]) == (0, count - 1)
    distances = set(np.diff(chosen).tolist())
    assert max(distances, default=1) - min(distances, default=1) <= 1
