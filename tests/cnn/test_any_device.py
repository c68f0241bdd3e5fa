"""Layers, losses and optimizers on a device other than the CPU: nothing in them prevents a capture as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cnn import Cache, Layer, Mode, build_model, ops
from cnn.arguments import construct
from cnn.averaging import MovingAverage
from cnn.clipping import clip_grad_norm
from cnn.graphs.fusion import fuse
from cnn.losses import LOSSES, AdversarialLoss, LipschitzPenalty, Loss, NegativeELBO
from cnn.optimizers import OPTIMIZERS
from tests.any_device import DEVICE, Uncapturable, moved, run_captured, tensor
from tests.cnn.cases import FAMILIES
from tests.cnn.test_layers import KINDS, LONG

CLASSES, COUNT = 4, 6


def forward_and_backward(layer: Layer, x: Tensor, mode: Mode) -> None:
    for need_dx in (True, False):
        y, cache = layer.forward(x, mode)
        layer.backward(torch.empty_like(y), cache, need_dx=need_dx)
    layer.forward(x, Mode(mode.train, keep_cache=False))


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100 if LONG else 5)
@given(data=st.data())
def test_every_layer_is_capturable(kind: str, train: bool, data: st.DataObject) -> None:
    case = data.draw(next(family[kind] for family in FAMILIES.values() if kind in family))
    network = moved(build_model({"layers": [case.entry]}, case.input_shape))
    x = tensor(*case.input_shape, case.batch)
    run_captured(lambda: forward_and_backward(network, x, Mode(train)))


@pytest.mark.parametrize("train", [True, False])
def test_fused_layers_are_capturable(train: bool) -> None:
    convolution = {"conv2d": {"out_channels": 3, "kernel_size": 3, "padding": 1}}
    pool = {"max_pool2d": {"kernel_size": 2}}
    residual = {"residual": {"body": [convolution, "batch_norm"]}}
    layers = [convolution, "batch_norm", pool, "relu", convolution, "batch_norm", "relu", residual, "relu"]
    network = moved(build_model({"layers": layers}, (1, 8, 8)))
    fused = fuse(network)
    assert len(fused.layers) < len(network.layers)
    run_captured(lambda: forward_and_backward(fused, tensor(1, 8, 8, COUNT), Mode(train)))


LOSS_ARGUMENTS: list[tuple[str, dict[str, Any]]] = [
    *((kind, {}) for kind in LOSSES),
    ("cross_entropy", {"weight": [0.5, 1.0, 0.0, 2.0]}),
    ("cross_entropy", {"label_smoothing": 0.1}),
    ("cross_entropy", {"weight": [0.5, 1.0, 0.0, 2.0], "label_smoothing": 0.1}),
    ("bce_with_logits", {"pos_weight": [0.5, 1.0, 0.0, 2.0]}),
    ("huber", {"delta": 0.5}),
    ("non_saturating", {"label_smoothing": 0.1}),
    ("least_squares", {"label_smoothing": 0.1}),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("kind", "arguments"), LOSS_ARGUMENTS, ids=str)
def test_every_loss_is_capturable(kind: str, arguments: dict[str, Any], dtype: torch.dtype) -> None:
    loss: Loss = construct(LOSSES[kind], arguments)
    prediction, classes = tensor(CLASSES, COUNT, dtype=dtype), tensor(COUNT, dtype=torch.int64)
    target = classes if loss.targets == "classes" else tensor(CLASSES, COUNT, dtype=dtype)

    def work() -> None:
        value, cache = loss.forward(prediction, target)
        gradient = loss.backward(cache)
        assert (value.shape, value.device, gradient.shape) == ((), DEVICE, prediction.shape)
        loss.share(classes)
        if isinstance(loss, AdversarialLoss):
            loss.backward(loss.of_generator(prediction)[1])

    run_captured(work)


@pytest.mark.parametrize(
    ("loss", "prediction", "target"),
    [(NegativeELBO(0.5), (CLASSES + 2 * 3, COUNT), (CLASSES, COUNT)), (LipschitzPenalty(), (1, COUNT), (COUNT // 2,))],
)
def test_inner_losses_are_capturable(loss: Loss, prediction: tuple[int, ...], target: tuple[int, ...]) -> None:
    run_captured(lambda: loss.backward(loss.forward(tensor(*prediction), tensor(*target))[1]))


RULES: list[tuple[str, dict[str, Any]]] = [
    *((kind, {}) for kind in OPTIMIZERS),
    *((kind, {"weight_decay": 0.1, "decay_all": True}) for kind in OPTIMIZERS),
    *((kind, {"weight_decay": 0.1}) for kind in OPTIMIZERS),
    ("sgd", {"momentum": 0.9, "dampening": 0.1}),
    ("sgd", {"momentum": 0.9, "nesterov": True}),
    ("rmsprop", {"momentum": 0.9, "centered": True}),
]


@pytest.mark.parametrize(("kind", "arguments"), RULES, ids=str)
def test_every_optimizer_is_capturable(kind: str, arguments: dict[str, Any]) -> None:
    flat = moved(build_model({"layers": [{"linear": {"out_features": 3}}]}, (4,))).flat
    rule = construct(OPTIMIZERS[kind], arguments)

    def work() -> None:
        clip_grad_norm(flat.grad, 1.0)
        ops.live(rule.advance, flat)
        rule.update(flat)

    run_captured(work)
    assert rule.steps == 2


def test_a_moving_average_is_capturable() -> None:
    network = moved(build_model({"layers": [{"linear": {"out_features": 3}}, "batch_norm"]}, (4,)))
    average = MovingAverage(network, 0.9)
    run_captured(lambda: average.update(network))
    assert average.updates == 2


def test_what_batches_share_is_capturable() -> None:
    rows, scores, classes = tensor(9, 5), tensor(CLASSES, COUNT), tensor(COUNT, dtype=torch.int64)

    def work() -> None:
        ops.take_examples(tensor(5, COUNT), rows, classes)
        ops.clear(scores)
        ops.argmax(scores)
        ops.count_hits(scores, classes)

    run_captured(work)


UNCAPTURABLE: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "a number": (lambda x: x.sum().item(), "a value is read"),
    "a condition": (lambda x: bool((x > 0).all()), "a value is read"),
    "a comparison": (lambda x: torch.equal(x, x), "a value is read"),
    "a larger one": (lambda x: max(x[0, 0], x[0, 1]), "a value is read"),
    "a mask": (lambda x: x[x > 0], "a shape depends on values"),
    "writing by a mask": (lambda x: x.__setitem__(x > 0, 1.0), "a shape depends on values"),
    "counts": (lambda x: torch.bincount(x.flatten().to(torch.int64)), "a shape depends on values"),
    "a list": (lambda x: torch.tensor([1.0, 2.0], device=x.device), "values of Python are copied"),
    "a new list": (lambda x: x.new_tensor([1.0]), "values of Python are copied"),
    "a list as a tensor": (lambda x: torch.as_tensor([1.0], device=x.device), "values of Python are copied"),
    "places": (lambda x: x[:, [0, 1]], "a list as an index"),
    "an array": (lambda x: torch.from_numpy(torch.ones(2).numpy()).to(x.device), "copied between devices"),
    "a copy to the host": (lambda x: x.cpu(), "copied between devices"),
    "a copy from the host": (lambda x: x.copy_(torch.ones(x.shape)), "several devices meet"),
    "a factor of the host": (lambda x: x * torch.tensor(2.0), "several devices meet"),
    "places of the host": (lambda x: x[torch.arange(2)], "several devices meet"),
}


class Doing(Layer):
    """A layer that does something to its input."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        self.function = function

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        self.function(x)
        return x, mode.keep()


@pytest.mark.parametrize("name", UNCAPTURABLE)
def test_what_is_not_capturable_is_found(name: str) -> None:
    function, reason = UNCAPTURABLE[name]
    layer, mode, x = Doing(function), Mode(train=True), tensor(3, 4)
    with pytest.raises(Uncapturable, match=reason):
        judged_alone(lambda: layer.forward(x, mode))


def judged_alone(work: Callable[[], object]) -> None:
    """Run work as a capture, without a first time: most of this fails without values in any case."""
    runs = iter([lambda: None, work])
    run_captured(lambda: next(runs)())


def test_what_is_made_the_first_time_and_what_is_live_is_exempt() -> None:
    made: list[Tensor] = []
    x = tensor(2)

    def work() -> None:
        if not made:
            made.append(torch.tensor([1.0, 2.0], device=x.device))
        ops.live(lambda _: x.copy_(torch.ones(2)), None)
        x.add_(made[0])

    run_captured(work)
    assert len(made) == 1
