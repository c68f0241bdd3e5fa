"""What happens between two rows of metrics.csv: accumulation, clipping, learning rates, noise, and when it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cnn import Cache, Layer, Mode
from cnn.layers import LAYERS
from cnn.losses import LOSSES
from cnn.schedules import Cosine, RunLength
from runners.files import checkpoint, metrics_csv
from runners.training import evaluation
from tests.classifier import classifier, examples, network, train_step
from tests.runners.conftest import Run

PLAIN_MODEL = "model.layers=[flatten,{linear:{out_features:3}}]"


def test_the_whole_gradient_is_clipped() -> None:
    gradients = []
    for max_norm in (None, 1e-3):
        task = classifier(network(), LOSSES["cross_entropy"]())
        train_step(task, [examples(3), examples(7)], max_norm=max_norm)
        gradients.append(task.graphs["model"].flat.grad)
    free, clipped = gradients
    assert float(free.norm()) > 0.01
    assert torch.allclose(clipped, free * 1e-3 / (free.norm() + 1e-6), rtol=1e-9)


def rows(run_dir: str) -> list[dict[str, float]]:
    return metrics_csv.read(Path(run_dir, "metrics.csv"))


def summary(run_dir: str) -> Any:
    return json.loads(Path(run_dir, "summary.json").read_text())


def test_a_run_with_accumulation_takes_the_steps_of_large_batches(run: Run) -> None:
    common = [PLAIN_MODEL, "dtype=float64", "optimizer=sgd", "optimizer.momentum=0.9", "clip_grad_norm=0.5"]
    assert run("run_dir=large", "batch_size=16", *common) == 0
    assert run("run_dir=small", "batch_size=4", "accumulate=4", *common) == 0
    assert [row["step"] for row in rows("small")] == [8, 16]  # 120 examples: the last step has two batches of four
    for large, small in zip(rows("large"), rows("small"), strict=True):
        for name in ("train/loss", "train/accuracy", "val/loss", "lr"):
            assert small[name] == pytest.approx(large[name], rel=1e-9)


def test_the_lr_of_a_row_is_that_of_its_last_step(run: Run) -> None:
    assert run("run_dir=first", "schedule=cosine", "schedule.warmup_steps=3", "accumulate=3", "epochs=3") == 0
    length = RunLength(steps_per_epoch=3, epochs=3)  # 8 batches
    schedule = Cosine(warmup_steps=3)
    assert [row["lr"] for row in rows("first")] == [schedule(0.01, step, length) for step in (2, 5, 8)]


def test_a_plateau_is_seen_and_saved(run: Run) -> None:
    choices = ["schedule=reduce_on_plateau", "schedule.patience=0", "schedule.threshold=0.999"]
    assert run("run_dir=first", "epochs=3", "optimizer=sgd", "optimizer.momentum=0.9", *choices) == 0
    assert [row["lr"] for row in rows("first")] == pytest.approx([0.1, 0.1, 0.01])
    saved = checkpoint.load(Path("first/checkpoints/last.pkl"))
    assert saved.networks["model"].schedule["reductions"] == 2
    assert saved.networks["model"].schedule["best"] == rows("first")[0]["val/loss"]
    assert saved.networks["model"].optimizer["steps"] == 24
    assert np.any(saved.networks["model"].optimizer["velocity"])


def test_patience_stops_a_run(run: Run) -> None:
    assert run("run_dir=first", "epochs=10", "optimizer=sgd", "optimizer.lr=1e-9", "patience=2") == 0
    assert len(rows("first")) == 3
    assert summary("first")["stopped_early"] is True
    assert summary("first")["best"]["epoch"] == 1
    assert "stopped early: no better val/accuracy for 2 epochs" in Path("first/run.log").read_text()


def test_patience_over_in_the_last_epoch_stops_nothing(run: Run) -> None:
    assert run("run_dir=first", "epochs=3", "optimizer=sgd", "optimizer.lr=1e-9", "patience=2") == 0
    assert len(rows("first")) == 3
    assert summary("first")["stopped_early"] is False


def test_evaluation_uses_the_losses_own_arguments(run: Run) -> None:
    assert run("run_dir=first", "loss.label_smoothing=0.3", "loss.weight=[1,2,0.5]") == 0
    again = evaluation.evaluate("first")
    assert again.means["test/loss"] == pytest.approx(summary("first")["test"]["test/loss"], rel=1e-6)


class Noise(Layer):
    """y = x; keeps what it draws."""

    kind = "noise"
    drawn: list[float]

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        if mode.train and mode.generator is not None:
            self.drawn.append(float(torch.rand((), generator=mode.generator)))
        return x, mode.keep()

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        cache.take()
        return dy if need_dx else None


def test_noise_depends_on_seed_epoch_and_step_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAYERS, "noise", Noise)
    model = "model.layers=[noise,flatten,{linear:{out_features:3}}]"

    def drawn(*overrides: str) -> list[float]:
        Noise.drawn = []
        assert run(model, *overrides) == 0
        return Noise.drawn[1:]  # the summary's trial comes first

    first = drawn("seed=1")
    assert len(first) == len(set(first)) == 16  # two epochs of eight steps
    assert drawn("seed=1") == first
    assert not set(drawn("seed=2")) & set(first)
    short = drawn("seed=1", "data.num_examples=64")  # epochs of four steps
    assert short == first[:4] + first[8:12]
    halves = drawn("seed=1", "batch_size=8", "accumulate=2")
    assert len(halves) == len(set(halves)) == 30  # each batch of a step has noise of its own
    assert halves[0:16:2] == first[:8]
