"""Detect values that aren't finite: in a tensor, and layer by layer in a network."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from cnn import Buffer, Cache, Graph, Layer, Mode, Parameter, Sequential
from cnn.losses import AdversarialLoss, Loss

Report = Callable[[str], None]
"""Called with the name of what isn't finite."""


def finite(*tensors: Tensor | None) -> bool:
    """Whether no value is infinite or NaN: one pass, or a second one if large values may have overflowed the sum."""
    return all(
        tensor is None or bool(tensor.sum().isfinite()) or bool((tensor * 0).sum().isfinite()) for tensor in tensors
    )


def watch(graph: Sequential, report: Report, path: str = "") -> Sequential:
    """A graph of the same layers that reports outputs and gradients that aren't finite."""
    watched = _watched(graph, report, path)
    assert isinstance(watched, Sequential)
    return watched


def _watched(layer: Layer, report: Report, path: str) -> Layer:
    if not isinstance(layer, Graph):
        return Watched(path, layer, report)
    graph = copy.copy(layer)
    graph.layers = {
        name: _watched(inner, report, f"{path}.{name}" if path else name) for name, inner in layer.layers.items()
    }
    return graph


class Watched(Layer):
    """A layer that reports an output, or a gradient of its input or a parameter, that isn't finite."""

    def __init__(self, name: str, layer: Layer, report: Report) -> None:
        self.name = name
        self.layer = layer
        self.report = report
        vars(self).update(kind=layer.kind, place=layer.place, frozen=layer.frozen)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.layer.output_shape(input_shape)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        return self.layer.named_parameters()

    def named_buffers(self) -> Iterator[tuple[str, Buffer]]:
        return self.layer.named_buffers()

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        y, cache = self.layer.forward(x, mode)
        if not finite(y):
            self.report(f"the output of {self.name}")
        return y, cache

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        dx = self.layer.backward(dy, cache, need_dx=need_dx, need_dparams=need_dparams)
        for parameter_name, parameter in self.layer.named_parameters():
            if not finite(parameter.grad):
                self.report(f"the gradient of {self.name}.{parameter_name}")
        if not finite(dx):
            self.report(f"the gradient of the input of {self.name}")
        return dx


def watch_loss(loss: Loss, report: Report) -> Loss:
    """A loss that reports a value or gradient that isn't finite."""
    if isinstance(loss, AdversarialLoss):
        return WatchedAdversarialLoss(loss, report)
    return WatchedLoss(loss, report)


class WatchedLoss(Loss):
    """A loss that reports a value or gradient that isn't finite."""

    def __init__(self, loss: Loss, report: Report) -> None:
        self.loss = loss
        self.report = report
        vars(self).update(kind=loss.kind, targets=loss.targets, contains=loss.contains)

    def share(self, labels: Tensor) -> Tensor | int:
        return self.loss.share(labels)

    def forward(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Cache]:
        value, cache = self.loss.forward(prediction, target)
        if not finite(value):
            self.report("the loss")
        return value, cache

    def backward(self, cache: Cache) -> Any:
        dy = self.loss.backward(cache)
        if not finite(dy):
            self.report("the loss")
        return dy


class WatchedAdversarialLoss(WatchedLoss, AdversarialLoss):
    """The same for both sides of an adversarial loss."""

    loss: AdversarialLoss

    def __init__(self, loss: AdversarialLoss, report: Report) -> None:
        super().__init__(loss, report)
        self.penalty = loss.penalty

    def of_generator(self, scores: Tensor) -> tuple[Tensor, Cache]:
        value, cache = self.loss.of_generator(scores)
        if not finite(value):
            self.report("the loss")
        return value, cache
