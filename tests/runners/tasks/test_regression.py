"""Regression: pictures, numbers and arrays as targets, with and without noise."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cnn import build_model
from cnn.losses import LOSSES
from cnn.optimizers import SGD
from cnn.schedules import Constant
from runners.data.batches import Batch
from runners.data.dataset import Description
from runners.tasks.measures import psnr, ssim
from runners.tasks.regression import Regression
from runners.tasks.sums import Sums
from tests.generators import pictures, step

SHAPE = (1, 12, 12)
SAME: Any = {"conv2d": {"out_channels": 1, "kernel_size": 3, "padding": 1}}


def task_of(layers: list[Any], loss: str = "l2", **options: Any) -> Regression:
    task = Regression(**options)
    task.build({"model": build_model({"layers": layers}, SHAPE, dtype=torch.float64)}, LOSSES[loss]())
    task.train_with({"model": (SGD(lr=0.05), Constant())})
    return task


def batch_of(count: int = 6, first: int = 0) -> Batch:
    x = torch.rand((*SHAPE, count), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return Batch(x, pictures(count).targets, first)


def evaluated(task: Regression, batch: Batch) -> dict[str, float]:
    sums = Sums()
    task.evaluate(batch, sums)
    return sums.means("val")


@pytest.mark.parametrize("loss", ["l1", "l2", "huber", "bce_with_logits"])
def test_training_lowers_the_loss(loss: str) -> None:
    task, losses = task_of([SAME], loss, target="input", noise=0.1), []
    for _ in range(100):
        sums = Sums()
        task.train_step([batch_of()], step(0), sums)
        losses.append(sums.means("train")["train/loss"])
    assert losses[-1] < 0.95 * losses[0]


def test_a_group_of_batches_is_one_large_batch() -> None:
    whole, grouped = (task_of([SAME], target="input") for _ in range(2))
    batch = batch_of(9)
    parts = [Batch(batch.x[..., :4], batch.targets[:4]), Batch(batch.x[..., 4:], batch.targets[4:])]
    whole.train_step([batch], step(0), Sums())
    grouped.train_step(parts, step(0), Sums())
    assert torch.allclose(whole.graphs["model"].flat.grad, grouped.graphs["model"].flat.grad, rtol=1e-9)


def test_pictures_are_measured_and_the_gain_is_over_the_noisy_input() -> None:
    task, batch = task_of([SAME], target="input", noise=0.2), batch_of()
    found = evaluated(task, batch)
    noisy = task._noisy(batch)
    made = task.predict(noisy)
    assert found["val/psnr"] == pytest.approx(float(psnr(made, batch.x).mean()))
    assert found["val/ssim"] == pytest.approx(float(ssim(made, batch.x).mean()))
    gain = psnr(made, batch.x) - psnr(noisy, batch.x)
    assert found["val/psnr_gain"] == pytest.approx(float(gain.mean()))
    assert float((noisy - batch.x).std()) == pytest.approx(0.2, rel=0.1)


def test_noise_is_new_in_each_step_and_the_same_in_each_evaluation() -> None:
    task = task_of([SAME], target="input", noise=0.3)
    assert evaluated(task, batch_of()) == evaluated(task, batch_of())
    assert torch.equal(task._noisy(batch_of(6))[..., 4:], task._noisy(Batch(batch_of(6).x[..., 4:], torch.empty(0), 4)))
    losses = []
    for index in (0, 0, 1):
        sums = Sums()
        fresh = task_of([SAME], target="input", noise=0.3)
        fresh.train_step([batch_of()], step(index), sums)
        losses.append(sums.means("train")["train/loss"])
    assert losses[0] == losses[1] != losses[2]


def test_numbers_and_arrays_are_targets() -> None:
    number = task_of(["flatten", {"linear": {"out_features": 1}}])
    batch = batch_of()
    found = evaluated(number, batch)
    expected = (number.predict(batch.x)[0] - batch.targets).abs().mean()
    assert found["val/absolute_error"] == pytest.approx(float(expected))
    assert set(found) == {"val/loss", "val/absolute_error"}
    vectors = task_of(["flatten", {"linear": {"out_features": 4}}])
    targets = torch.rand(4, 6)
    found = evaluated(vectors, Batch(batch.x, targets))
    assert found["val/loss"] == pytest.approx(float((vectors.predict(batch.x) - targets).square().mean()), rel=1e-6)


def test_a_sigmoid_that_the_loss_contains_is_left_out_in_training_and_applied_in_predictions() -> None:
    task = task_of([SAME, "sigmoid"], "bce_with_logits", target="input")
    assert [layer.kind for layer in task.scored.layers.values()] == ["conv2d"]
    made = task.predict(batch_of().x)
    assert 0 < float(made.min()) < float(made.max()) < 1


@pytest.mark.parametrize(
    ("layers", "loss", "data", "place", "problem"),
    [
        (["flatten"], "l2", Description(SHAPE), "model.layers", "gives [144], but the targets are [1, 12, 12]"),
        ([SAME], "cross_entropy", Description(SHAPE), "loss.name", "cross_entropy doesn't compare values, give "),
        ([SAME], "hinge", Description(SHAPE), "loss.name", "hinge doesn't compare values, give bce_with_logits, l2, "),
    ],
)
def test_what_does_not_fit_is_a_fault(
    layers: list[Any], loss: str, data: Description, place: str, problem: str
) -> None:
    task = task_of(layers, "l2", target="input")
    (fault,) = task.faults(task.graphs, LOSSES[loss](), data)
    assert fault.place == place
    assert problem in fault.problem


def test_targets_of_the_data_have_to_fit() -> None:
    task = task_of(["flatten", {"linear": {"out_features": 2}}])
    numbers = Description(SHAPE, None, 10, (), (0.0, 9.0))
    problems = [fault.problem for fault in task.faults(task.graphs, LOSSES["bce_with_logits"](), numbers)]
    assert problems[0].endswith("gives [2], but the targets are [1]")
    assert problems[1] == "bce_with_logits takes targets in [0, 1], but the data have 0 to 9: give l1, l2 or huber"
