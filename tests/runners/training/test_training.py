"""What happens between two rows of metrics.csv: accumulation, clipping, learning rates, noise, and when it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cnn import Cache, Layer, Mode, Sequential, build_model
from cnn.layers import LAYERS
from cnn.layers.activation import Sigmoid, Softmax
from cnn.losses import LOSSES, CrossEntropy
from cnn.schedules import Cosine, RunLength
from runners.data.batches import Batch
from runners.files import checkpoint, metrics_csv
from runners.tasks.sums import Sums
from runners.training import evaluation
from tests.classifier import classifier, train_step
from tests.runners.conftest import Run

PLAIN_MODEL = "model.layers=[flatten,{linear:{out_features:3}}]"


def network(*end: str) -> Sequential:
    layers = [{"conv2d": {"out_channels": 2, "kernel_size": 3}}, "relu", "flatten", {"linear": {"out_features": 4}}]
    return build_model({"layers": [*layers, *end]}, (1, 5, 5), seed=1, dtype=torch.float64)


def examples(count: int) -> Batch:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(1, 5, 5, count, generator=generator, dtype=torch.float64)
    return Batch(x, torch.randint(0, 4, (count,), generator=generator))


@pytest.mark.parametrize("loss", LOSSES)
def test_batches_that_are_accumulated_equal_one_large_batch(loss: str) -> None:
    whole = examples(12)
    cuts = [slice(0, 5), slice(5, 10), slice(10, 12)]
    parts = [Batch(whole.x[..., cut].contiguous(), whole.targets[cut]) for cut in cuts]
    found = []
    for batches in (parts, [whole]):
        task = classifier(network(), LOSSES[loss]())
        means = train_step(task, batches)
        found.append((task.graphs["model"].flat, means))
    (ours, our_means), (expected, expected_means) = found
    assert torch.allclose(ours.grad, expected.grad, rtol=1e-9, atol=1e-12)
    assert torch.allclose(ours.data, expected.data, rtol=1e-9, atol=1e-12)
    assert our_means == pytest.approx(expected_means)


def test_the_whole_gradient_is_clipped() -> None:
    gradients = []
    for max_norm in (None, 1e-3):
        task = classifier(network(), LOSSES["cross_entropy"]())
        train_step(task, [examples(3), examples(7)], max_norm=max_norm)
        gradients.append(task.graphs["model"].flat.grad)
    free, clipped = gradients
    assert float(free.norm()) > 0.01
    assert torch.allclose(clipped, free * 1e-3 / (free.norm() + 1e-6), rtol=1e-9)


@pytest.mark.parametrize(("loss", "kind"), [("cross_entropy", "softmax"), ("bce_with_logits", "sigmoid")])
def test_the_layer_that_a_loss_contains_is_left_out_in_training(loss: str, kind: str) -> None:
    assert LOSSES[loss].contains == kind
    flats = []
    for end in ([], [kind]):
        task = classifier(network(*end), LOSSES[loss]())
        task.graphs["model"].load_state(network().state())
        train_step(task, [examples(6)])
        flats.append(task.graphs["model"].flat.data)
    assert torch.equal(*flats)
    other = {"softmax": "sigmoid", "sigmoid": "softmax"}[kind]
    assert list(classifier(network(other), LOSSES[loss]()).scored.layers)[-1] == f"{other}_1"


def test_a_last_layer_is_found_in_nested_graphs() -> None:
    x = torch.randn(3, 4, dtype=torch.float64)
    nets = [
        Sequential([Sigmoid(), Softmax()]),
        Sequential([Sigmoid(), Sequential([Softmax()])]),
        Sequential([Sequential([Sigmoid(), Sequential([Softmax()])])]),
    ]
    for net in nets:
        y, _ = net.without_last("softmax").forward(x, Mode(train=False))
        assert torch.equal(y, Sigmoid().forward(x, Mode(train=False))[0])
        assert torch.equal(net.without_last("sigmoid").forward(x, Mode(train=False))[0], net.forward(x, Mode(False))[0])


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("end", [[], ["softmax"], ["sigmoid"]])
def test_probabilities(loss: str, end: list[str]) -> None:
    net = network(*end)
    x = examples(5).x
    found = classifier(net, LOSSES[loss]()).predict(x)
    assert (found >= 0).all()
    assert torch.allclose(found.sum(0), torch.ones(5, dtype=torch.float64))
    contained = LOSSES[loss].contains
    logits, _ = net.forward(x, Mode(train=False))
    if contained and end != [contained]:
        logits = {"softmax": torch.softmax, "sigmoid": lambda z, _: torch.sigmoid(z)}[contained](logits, 0)
    positive = logits.clamp(min=1e-300)
    assert torch.allclose(found, positive / positive.sum(0))


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


def test_accumulated_batches_with_class_weights_are_one_large_batch() -> None:
    """Each batch counts with the weights of its classes, in the gradient and in the epoch's mean loss."""
    loss = CrossEntropy(weight=[1.0, 5.0, 0.2, 2.0])
    whole = examples(10)
    parts = [Batch(whole.x[..., piece], whole.targets[piece]) for piece in (slice(0, 3), slice(3, 10))]
    found = []
    for batches in ([whole], parts):
        net = network()
        means = train_step(classifier(net, loss), batches)
        found.append((net.flat.grad.clone(), means["train/loss"]))
    assert torch.allclose(found[0][0], found[1][0], rtol=1e-9, atol=1e-12)
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-9)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_classes_without_weight_count_in_a_group_as_in_one_large_batch(smoothing: float, kernel_set: str) -> None:
    """A batch may have only such classes: with label smoothing it still has a part in the sums. Checked by torch."""
    weight = [0.0, 1.0, 2.0, 0.0]
    whole = examples(6)
    whole = Batch(whole.x, torch.tensor([0, 0, 1, 3, 2, 0]))
    cuts = [slice(0, 2), slice(2, 3), slice(3, 4), slice(4, 6)]
    parts = [Batch(whole.x[..., cut].contiguous(), whole.targets[cut]) for cut in cuts]
    net = network()
    logits = net.forward(whole.x, Mode(train=False))[0].T.requires_grad_()
    expected = nn.CrossEntropyLoss(torch.tensor(weight).double(), label_smoothing=smoothing)(logits, whole.targets)
    expected.backward()
    assert logits.grad is not None
    net.backward(logits.grad.T.contiguous(), net.forward(whole.x, Mode(train=True))[1])
    for batches in ([whole], parts):
        task, sums = classifier(network(), CrossEntropy(weight, smoothing)), Sums()
        means = train_step(task, batches)
        assert torch.allclose(task.graphs["model"].flat.grad, net.flat.grad, rtol=1e-9, atol=1e-12)
        assert means["train/loss"] == pytest.approx(expected.item(), rel=1e-9)
        for batch in batches:
            task.graphs["model"].load_state(network().state())
            task.evaluate(batch, sums)
        assert sums.means("val")["val/loss"] == pytest.approx(expected.item(), rel=1e-9)


def test_a_step_without_any_weight_changes_nothing(kernel_set: str) -> None:
    whole = Batch(examples(4).x, torch.tensor([0, 3, 3, 0]))
    parts = [Batch(whole.x[..., cut].contiguous(), whole.targets[cut]) for cut in (slice(0, 3), slice(3, 4))]
    for batches in ([whole], parts):
        task = classifier(network(), CrossEntropy([0.0, 1.0, 2.0, 0.0], label_smoothing=0.2))
        assert train_step(task, batches)["train/loss"] == 0
        assert not task.graphs["model"].flat.grad.any()


@pytest.mark.parametrize(("loss", "last"), [("bce_with_logits", []), ("l2", []), ("cross_entropy", ["softmax"])])
def test_probabilities_keep_the_order_of_the_outputs(loss: str, last: list[str]) -> None:
    """Also where all outputs are far below zero, and every sigmoid vanishes."""
    net = build_model({"layers": [{"linear": {"out_features": 3}}, *last]}, (3,))
    net.state()["linear_1.weight"].copy_(torch.eye(3))
    x = torch.tensor([[-300.0, 0.2], [-120.0, -3.0], [-200.0, 0.1]])
    p = classifier(net, LOSSES[loss]()).predict(x)
    assert p.argmax(0).tolist() == [1, 0]
    assert torch.allclose(p.sum(0), torch.ones(2))
