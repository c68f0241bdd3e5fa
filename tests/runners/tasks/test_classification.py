"""Classification: groups of batches as one, activations that a loss contains, probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cnn import Mode, Sequential, build_model
from cnn.layers.activation import Sigmoid, Softmax
from cnn.losses import LOSSES, CrossEntropy
from runners.data.batches import Batch
from runners.tasks.sums import Sums
from tests.classifier import classifier, examples, network, train_step
from tests.runners.conftest import Run


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
        net.build((3,))
        y, _ = net.without_last("softmax").forward(x, Mode(train=False))
        assert torch.equal(y, Sigmoid().forward(x, Mode(train=False))[0])
        assert torch.equal(net.without_last("sigmoid").forward(x, Mode(train=False))[0], net.forward(x, Mode(False))[0])


LAST_ONE: dict[str, Any] = {"sequential": {"layers": ["softmax", "identity"]}}
WIDE: dict[str, Any] = {"reshape": {"shape": [2, 2]}}
"""Two channels of two places each, over which a softmax or a sigmoid may run before everything is flattened."""


@pytest.mark.parametrize(
    ("loss", "end"),
    [
        ("cross_entropy", ["softmax", "flatten"]),
        ("cross_entropy", ["softmax", "identity", "identity"]),
        ("cross_entropy", [{"reshape": {"shape": [4, 1, 1]}}, "softmax", "flatten"]),
        ("cross_entropy", [LAST_ONE, "flatten"]),
        ("cross_entropy", [{"repeat": {"times": 1, "layers": [LAST_ONE]}}, {"sequential": {"layers": ["identity"]}}]),
        ("bce_with_logits", ["sigmoid", "flatten", "identity"]),
        ("bce_with_logits", [WIDE, "sigmoid", "flatten"]),
    ],
)
def test_what_a_loss_contains_is_left_out_before_layers_that_only_reshape(loss: str, end: list[Any]) -> None:
    flats = []
    for last in ([], end):
        task = classifier(network(*last), LOSSES[loss]())
        task.graphs["model"].load_state(network().state())
        train_step(task, [examples(6)])
        assert task.warnings() == []
        flats.append(task.graphs["model"].flat.data)
        if last:
            outputs, _ = task.graphs["model"].forward(examples(6).x, Mode(train=False))
            assert torch.allclose(task.predict(examples(6).x), outputs / outputs.sum(0))
    assert torch.equal(*flats)


@pytest.mark.parametrize(
    ("loss", "end", "named"),
    [
        ("cross_entropy", ["softmax", "softmax"], "layers.4.softmax"),
        ("cross_entropy", [WIDE, "softmax", "flatten"], "layers.5.softmax"),
        ("cross_entropy", ["softmax", {"dropout": {"p": 0.1}}], "layers.4.softmax"),
        ("cross_entropy", ["sigmoid"], "layers.4.sigmoid"),
        ("cross_entropy", [{"residual": {"body": ["relu", "softmax"]}}], "layers.4.residual.body.1.softmax"),
        ("cross_entropy", [{"sequential": {"layers": ["sigmoid"]}}, "softmax"], "layers.4.sequential.layers.0.sigmoid"),
        ("cross_entropy", ["log_softmax"], None),
        ("cross_entropy", ["softmax", {"linear": {"out_features": 4}}], None),
        ("bce_with_logits", ["log_softmax"], "layers.4.log_softmax"),
        ("bce_with_logits", ["softmax", "flatten"], "layers.4.softmax"),
        ("l2", ["softmax", "softmax"], None),
    ],
)
def test_an_activation_that_is_applied_twice_is_warned_of(loss: str, end: list[Any], named: str | None) -> None:
    warnings = classifier(network(*end), LOSSES[loss]()).warnings()
    assert [line.partition(": its outputs")[0] for line in warnings] == ([f"model.{named}"] if named else [])


def test_a_run_warns_of_an_activation_that_is_applied_twice(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    layers = "model.layers=[flatten,{linear:{out_features:3}},softmax,{dropout:{p:0.1}}]"
    assert run(layers, "epochs=1", "run_dir=here") == 0
    warning = (
        "model.layers.2.softmax: its outputs are the logits of the loss cross_entropy, which applies softmax to them"
    )
    assert f"warning: {warning}: leave this softmax out" in capsys.readouterr().err.splitlines()
    assert warning in Path("here", "run.log").read_text()


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
