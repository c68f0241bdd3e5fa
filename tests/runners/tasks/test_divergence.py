"""Numbers that stop being finite end a run, and are named where they show first."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cnn import build_model
from cnn.layers.activation import ReLU
from cnn.losses import CrossEntropy
from cnn.ops import NotFinite
from cnn.optimizers import SGD
from runners.data.batches import Batch
from runners.files import checkpoint, metrics_csv
from runners.tasks.divergence import fault_in_training
from runners.tasks.watching import finite
from runners.training import loop
from tests.classifier import ONLY, classifier, train_step
from tests.runners.conftest import Run


def network_with(middle: Any) -> Any:
    return build_model(
        {
            "layers": [
                {"conv2d": {"out_channels": 2, "kernel_size": 3}},
                middle,
                "flatten",
                {"linear": {"out_features": 3}},
            ]
        },
        (1, 6, 6),
    )


def step(network: Any, x: Tensor | None = None, accumulate: int = 1) -> str:
    """What a training step says went wrong."""
    batches = [
        Batch(torch.randn(1, 6, 6, 4) if x is None else x, torch.tensor([0, 1, 2, 0])) for _ in range(accumulate)
    ]
    weights = network.flat.data.clone()
    task = classifier(network, CrossEntropy())
    with pytest.raises(NotFinite):
        train_step(task, batches)
    fault = fault_in_training(task, batches, ONLY)
    assert torch.equal(network.flat.data, weights) or not finite(weights)
    return fault


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["conv2d_1.weight", "linear_1.bias", "batch_norm_1.running_mean"])
def test_a_weight_is_named(name: str, bad: float) -> None:
    network = network_with("batch_norm")
    if "running" in name:  # not used in training
        network.state()["batch_norm_1.weight"][0] = bad
        name = "batch_norm_1.weight"
    network.state()[name].view(-1)[0] = bad
    assert step(network) == name


def test_images_are_named() -> None:
    assert step(network_with("relu"), torch.full((1, 6, 6, 4), math.nan)) == "the batch's images"


@pytest.mark.parametrize(
    ("direction", "named"),
    [("forward", "the output of relu_1"), ("backward", "the gradient of the input of relu_1")],
)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_layer_where_it_shows_first_is_named(
    direction: str, named: str, accumulate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = network_with("relu")
    sound = getattr(ReLU, direction)

    def broken(self: ReLU, value: Tensor, *others: Any, **needs: bool) -> Any:
        result = sound(self, value, *others, **needs)
        return (result[0] / 0, result[1]) if direction == "forward" else result / 0

    monkeypatch.setattr(ReLU, direction, broken)
    assert step(network, accumulate=accumulate) == named


def test_large_but_finite_values_pass() -> None:
    large = torch.full((100,), 3e37)
    assert not bool(large.sum().isfinite())
    assert finite(large)
    assert not finite(large, torch.tensor([math.nan]))


def test_a_run_that_diverges_stops_and_keeps_what_it_had(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """The learning rate grows beyond all bounds in the third epoch or so."""
    grows = ["loss=l2", "optimizer=sgd", "optimizer.lr=0.01", "schedule=exponential", "schedule.rate=8"]
    assert run("run_dir=a", "epochs=9", *grows) == 1
    message = capsys.readouterr().err
    assert "isn't finite in " in message
    assert "a smaller optimizer.lr or clip_grad_norm may help" in message
    status = json.loads(Path("a/status.json").read_text())
    assert status["state"] == "failed"
    assert "isn't finite" in status["reason"]
    rows = metrics_csv.read(Path("a/metrics.csv"))
    assert 1 <= len(rows) < 9
    assert all(math.isfinite(value) for row in rows for value in row.values())
    for which in ("last", "best"):
        weights = checkpoint.load(Path(f"a/checkpoints/{which}.pkl")).networks["model"].weights
        assert all(torch.from_numpy(array).isfinite().all() for array in weights.values())


PLAIN = "model.layers=[flatten,{linear:{out_features:3}}]"
NORMED = "model.layers=[{conv2d:{out_channels:4,kernel_size:3}},batch_norm,relu,flatten,{linear:{out_features:3}}]"
AT_ONCE = ["optimizer=sgd", "schedule=constant", "epochs=3"]
ENDS = {
    "in the validation": (
        [PLAIN, "optimizer.lr=1e36", "batch_size=120", "loss=l2"],
        "the loss isn't finite in the validation after epoch 1",
    ),
    "in training": ([PLAIN, "optimizer.lr=1e25", "loss=l2"], "the loss isn't finite in step 2 of epoch 1 (lr 1e+25)"),
    "with several batches a step": (
        [PLAIN, "optimizer.lr=1e25", "loss=l2", "accumulate=2"],
        "the loss isn't finite in step 2 of epoch 1",
    ),
    "with large gradients cut": (
        [PLAIN, "optimizer.lr=1e25", "loss=l2", "clip_grad_norm=1"],
        "the loss isn't finite in step 2 of epoch 1",
    ),
    "in double precision": (
        [PLAIN, "optimizer.lr=1e200", "loss=l2", "dtype=float64"],
        "the loss isn't finite in step 2 of epoch 1 (lr 1e+200)",
    ),
    "in what batch norm keeps": (
        [NORMED, "optimizer.lr=1e18", "checkpoint.every_steps=1"],
        "batch_norm_1.running_var isn't finite after step 2; the checkpoints before it are kept",
    ),
    "in the sum of losses that are finite one by one": (
        [NORMED, "optimizer.lr=1e19"],
        "the sum over the batches isn't finite in step 2 of epoch 1",
    ),
    "in the weights": (
        [PLAIN, "optimizer.lr=3e38", "optimizer.weight_decay=100", "checkpoint.every_steps=1"],
        "linear_1.weight isn't finite after step 1",
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_what_is_said_of_a_run_that_diverges(end: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    overrides, message = ENDS[end]
    assert run("run_dir=a", *AT_ONCE, *overrides) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: the run failed: {message}")
    assert json.loads(Path("a/status.json").read_text())["diverged"] is True
    checkpoint.rebuild(checkpoint.load(Path("a/checkpoints/last.pkl")))


def test_a_loss_in_the_test_that_is_no_number(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    sound = loop.evaluate

    def evaluate(*arguments: Any) -> Any:
        predicted, totals = sound(*arguments)
        totals.add("loss", math.inf, 1)
        return predicted, totals

    monkeypatch.setattr("runners.training.experiment.evaluate", evaluate)  # the loop's own is that of validation
    assert run("run_dir=a") == 1
    assert "the sum over the batches isn't finite in the test, with the weights of epoch 1" in capsys.readouterr().err
    assert not Path("a/summary.json").exists()


def test_weights_that_a_step_drove_beyond_all_numbers_are_not_saved(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = SGD.update

    def leaps(self: SGD, flat: Any) -> None:
        sound(self, flat)
        if self.steps == 8:  # the last of the first epoch
            flat.data.fill_(math.nan)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(SGD, "update", leaps)
    assert run("run_dir=a", "capture=false", "optimizer=sgd", "optimizer.lr=0.01") == 1
    message = "the run failed: conv2d_1.weight isn't finite after step 8; the checkpoints before it are kept"
    assert capsys.readouterr().err == f"error: {message}\n"
    assert [file.name for file in Path("a/checkpoints").iterdir()] == ["last.pkl"]
    assert checkpoint.load(Path("a/checkpoints/last.pkl")).step == 0
