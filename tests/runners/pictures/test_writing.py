"""Grids of pictures, and pictures as files: what is read back is what was written, and always in the same bytes."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from runners.pictures import writing
from runners.pictures.grid import GAP, GROUND, as_bytes, grid
from runners.pictures.writing import encoded, gif, png, suffixes

Array = np.ndarray[Any, Any]


def noise(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).random(shape, np.float32)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (1, 4, 1), (6, 3, 2), (7, 3, 3), (3, 10, 1)])
def test_a_grid_has_every_picture_in_its_place(channels: int, count: int, columns: int, rows: int) -> None:
    pictures = noise(channels, 4, 5, count)
    sheet = grid(pictures, columns)
    across = min(columns, count)
    assert sheet.shape[:2] == (rows * (4 + GAP) - GAP, across * (5 + GAP) - GAP)
    assert sheet.shape[2:] == ((3,) if channels == 3 else ())
    left_over = np.ones(sheet.shape[:2], bool)
    for index in range(count):
        top, left = index // across * (4 + GAP), index % across * (5 + GAP)
        place = np.s_[top : top + 4, left : left + 5]
        expected = np.rint(255 * np.moveaxis(pictures[..., index], 0, -1))
        assert np.array_equal(sheet[place], expected[..., 0] if channels == 1 else expected)
        left_over[place] = False
    assert (sheet[left_over] == GROUND).all()


def test_values_are_clamped_and_bytes_are_kept() -> None:
    assert as_bytes(np.array([-3, -0.1, 0, 0.5, 1, 1.2, np.inf])).tolist() == [0, 0, 0, 128, 255, 255, 255]
    pictures = noise(3, 4, 4, 5)
    assert np.array_equal(grid(as_bytes(pictures), 2), grid(pictures, 2))


def test_other_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="1 or 3 channels, these have 2"):
        grid(noise(2, 4, 4, 1), 1)


@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 3)])
@pytest.mark.parametrize("suffix", suffixes())
def test_a_picture_is_read_back(shape: tuple[int, ...], suffix: str) -> None:
    picture = as_bytes(noise(*shape))
    content = encoded(picture, suffix)
    assert content == encoded(picture.copy(), suffix)
    with Image.open(io.BytesIO(content)) as opened:
        read = np.asarray(opened.convert("L" if len(shape) == 2 else "RGB")).astype(int)
    assert np.abs(read - picture).max() <= (12 if suffix.startswith(".jp") else 0)
    assert png(picture) == encoded(picture, ".png")


def test_a_format_that_pillow_lacks_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    assert suffixes() == [".png", ".jpg", ".jpeg", ".webp"]
    monkeypatch.delitem(Image.SAVE, "WEBP")
    assert writing.suffixes() == [".png", ".jpg", ".jpeg"]


def test_a_gif_repeats_its_frames_for_ever() -> None:
    frames = [as_bytes(noise(12, 10, seed=seed)) for seed in range(5)]
    content = gif(frames, 120)
    assert content == gif([frame.copy() for frame in frames], 120)
    with Image.open(io.BytesIO(content)) as opened:
        assert opened.info["loop"] == 0
        assert opened.n_frames == 5  # type: ignore[attr-defined]
        for number, frame in enumerate(frames):
            opened.seek(number)
            assert opened.info["duration"] == 120
            assert np.array_equal(np.asarray(opened.convert("L")), frame)


def test_a_gif_of_colours_is_close() -> None:
    ramp = np.linspace(0, 1, 16)
    frames = [as_bytes(np.stack(np.broadcast_arrays(ramp[:, None], ramp, shade), -1)) for shade in (0.2, 0.8)]
    with Image.open(io.BytesIO(gif(frames))) as opened:
        for number, frame in enumerate(frames):
            opened.seek(number)
            assert np.abs(np.asarray(opened.convert("RGB")).astype(int) - frame).mean() < 10
