"""moving_mnist: every clip drifts as its class says, and no frame alone says which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from runners.cli import evaluate, predict
from runners.data.dataset import Dataset, Examples
from runners.data.sources.idx import Mnist
from runners.data.sources.moving_mnist import DIRECTIONS, MovingMnist
from runners.training import evaluation
from tests.runners.conftest import Run

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return MovingMnist(num_examples=3000, val_examples=500).load()


@pytest.fixture(scope="module")
def halved() -> Tensor:
    """The digits of the test file, [count, 14, 14]."""
    digits = Mnist().read()[1].images.double()
    return nn.functional.avg_pool2d(digits, 2)[:, 0]


def lag(before: Tensor, after: Tensor) -> Array:
    """By how many pixels the second images [count, H, W] are the first ones rolled, from the correlation's peak."""
    spectrum = np.fft.rfft2(after.numpy().astype(float)) * np.fft.rfft2(before.numpy().astype(float)).conj()
    correlation = np.fft.irfft2(spectrum, s=before.shape[1:])
    peaks = correlation.reshape(len(before), -1).argmax(1)
    return np.stack(np.unravel_index(peaks, before.shape[1:]), 1)


def offsets(frames: Tensor, halved: Tensor) -> Array:
    """Where the digit of each frame [count, size, size] begins, [count, 2]."""
    size = frames.shape[-1]
    at_origin = torch.zeros(len(frames), size, size, dtype=torch.float64)
    at_origin[:, :14, :14] = halved[: len(frames)]
    return lag(at_origin, frames)


def test_what_it_is(dataset: Dataset) -> None:
    assert dataset.train.images.shape == (3000, 1, 8, 20, 20)
    assert dataset.val.images.shape == (500, 1, 8, 20, 20)
    assert dataset.test.images.shape == (10000, 1, 8, 20, 20)
    assert dataset.train.images.dtype == torch.uint8
    assert MovingMnist().known_shape == dataset.input_shape
    assert dataset.class_names == list(DIRECTIONS)
    assert dataset.class_names[:3] == ["right", "down-right", "down"]


def test_classes_are_balanced() -> None:
    for examples in MovingMnist().read():
        counts = examples.targets.bincount(minlength=8)
        assert len(counts) == 8
        assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize(("size", "speed", "frames"), [(20, 1, 8), (14, 6, 3), (23, 3, 5)])
def test_every_clip_drifts_as_its_class_says(size: int, speed: int, frames: int) -> None:
    data = MovingMnist(num_examples=2000, size=size, speed=speed, frames=frames).load()
    steps = np.array(list(DIRECTIONS.values())) * speed
    for examples in (data.train, data.val, Examples(data.test.images[:2000], data.test.targets[:2000])):
        assert examples.images.shape[2:] == (frames, size, size)
        expected = steps[examples.targets.numpy()] % size
        clips = examples.images[:, 0]
        for time in range(frames - 1):
            assert np.array_equal(lag(clips[:, time], clips[:, time + 1]), expected)
            assert torch.equal(clips[:, time].flatten(1).sort()[0], clips[:, time + 1].flatten(1).sort()[0])


def deviations(observed: Array, expected: Array, freedom: int) -> float:
    """How far chi-square is above its mean, in its standard deviations."""
    statistic = ((observed - expected) ** 2 / expected).sum()
    return float((statistic - freedom) / (2 * freedom) ** 0.5)


def dependence(labels: Tensor, cells: Array, count: int) -> float:
    """Deviations from classes and cells being independent."""
    table = np.zeros((8, count))
    np.add.at(table, (labels.numpy(), cells), 1)
    independent = np.outer(table.sum(1), table.sum(0)) / table.sum()
    return deviations(table, independent, 7 * (count - 1))


@pytest.mark.parametrize("time", [0, 3, 7])
def test_a_single_frame_says_nothing(dataset: Dataset, halved: Tensor, time: int) -> None:
    found = offsets(dataset.test.images[:, 0, time], halved)
    for cells, count in ((found[:, 0] * 20 + found[:, 1], 400), (found[:, 0], 20), (found[:, 1], 20)):
        observed = np.bincount(cells, minlength=count)
        assert observed.min() > 0
        assert deviations(observed, np.full(count, 10000 / count), count - 1) < 5
        assert dependence(dataset.test.targets, cells, count) < 5


def test_the_bound_sees_places_that_depend_on_the_class(dataset: Dataset, halved: Tensor) -> None:
    """As they would if only half of the rows were starts: after 7 frames the place would tell the direction."""
    labels = dataset.test.targets
    rows = offsets(dataset.test.images[:, 0, 0], halved)[:, 0]
    down = np.array([step[0] for step in DIRECTIONS.values()])[labels.numpy()]
    assert dependence(labels, (rows // 2 + 7 * down) % 20, 20) > 100


def test_the_digits_are_mnists_halved(dataset: Dataset, halved: Tensor) -> None:
    found = offsets(dataset.test.images[:, 0, 0], halved)
    for index in range(100):
        shown = dataset.test.images[index, 0, 0].roll(tuple(-found[index]), (0, 1))
        assert (shown[:14, :14] - halved[index]).abs().max() <= 0.5
        assert not shown[14:].any()
        assert not shown[:, 14:].any()


def test_arguments_decide_every_bit(dataset: Dataset) -> None:
    again = MovingMnist(num_examples=3000, val_examples=500).load()
    assert torch.equal(again.train.images, dataset.train.images)
    assert torch.equal(again.train.targets, dataset.train.targets)
    fewer = MovingMnist(num_examples=1000, val_examples=500).load()
    assert torch.equal(fewer.train.images, dataset.train.images[:1000])
    assert torch.equal(fewer.val.images, dataset.val.images)
    split = MovingMnist(num_examples=1000, val_examples=500, split_seed=1).load()
    assert not torch.equal(split.val.images, dataset.val.images)
    assert dataset.fingerprint == again.fingerprint == fewer.fingerprint == split.fingerprint
    changes: list[dict[str, Any]] = [{"clip_seed": 1}, {"frames": 7}, {"speed": 2}, {"size": 21}]
    others = [MovingMnist(num_examples=1, **change).load() for change in changes]
    assert len({dataset.fingerprint, *(other.fingerprint for other in others)}) == 5
    assert not torch.equal(others[0].test.targets, dataset.test.targets)


def test_validation_on_the_test_file(dataset: Dataset) -> None:
    data = MovingMnist(num_examples=10, val_examples=10000, val_split="test").load()
    assert sorted(data.val.targets.tolist()) == sorted(dataset.test.targets.tolist())


DATA = ["data=moving_mnist", "data.num_examples=200", "data.val_examples=50"]
MODEL = ["model=conv3d", "model.width=2", "model.classes=8"]


def test_config_faults_come_before_the_files_are_opened(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Mnist, "read", lambda self: pytest.fail("opened"))
    for override, told in {
        "model.layers=[flatten,{linear:{out_features:7}}]": "gives [7], but the data have 8 classes: give [8]",
        "data.speed=10": "data.speed: 10 is not allowed for a size of 20, give at most 9",
        "data.frames=1": "data.frames: 1 is not allowed, give a whole number >= 2 and <= 64",
        "data.size=13": "data.size: 13 is not allowed, give a whole number >= 14 and <= 128",
    }.items():
        assert run(*DATA, *MODEL, override) == 2
        assert told in capsys.readouterr().err
    assert not list(Path().iterdir())


def test_a_run_is_evaluated_and_names_no_pictures(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*DATA, *MODEL, "epochs=1", "run_dir=drift", "data.frames=6") == 0
    own = evaluation.evaluate("drift")
    assert np.sum(own.details["confusion"]) == 10000
    assert own.details["class_names"] == list(DIRECTIONS)
    other = evaluation.evaluate("drift", ["data.clip_seed=1"])
    assert other.details["confusion"] != own.details["confusion"]
    capsys.readouterr()
    assert evaluate.main(["drift"]) == 0
    assert "moving_mnist: 10,000 test examples" in capsys.readouterr().out
    picture = Path("picture.png")
    picture.touch()
    assert predict.main(["drift", str(picture)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "its network takes [1, 6, 20, 20], pictures are [1 or 3 channels, height, width]" in line
