"""When numbers stop being finite: that a step has gone wrong, and where in the network it shows first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from cnn import Graph, Layer, Mode
from cnn.losses import Loss


class Diverged(Exception):
    """A loss, a gradient or a weight is infinite or not a number."""

    @classmethod
    def at(cls, what: str, when: str) -> Diverged:
        return cls(f"{what} isn't finite {when}; a smaller optimizer.lr or clip_grad_norm may help")


def finite(*tensors: Tensor | None) -> bool:
    """Whether no value is infinite or NaN: one pass, and a second where large values may have made the sum infinite."""
    return all(
        tensor is None or bool(tensor.sum().isfinite()) or bool((tensor * 0).sum().isfinite()) for tensor in tensors
    )


def first_fault(network: Graph, loss: Loss, x: Tensor, target: Callable[[Tensor], Tensor], mode: Mode) -> str | None:
    """What isn't finite first when a batch runs forward, and in training backward, once more, layer by layer.

    `target` gives what the loss compares an output with.
    """
    if not finite(x):
        return "the batch's images"
    for name, parameter in network.named_parameters():
        if not finite(parameter.data):
            return name
    found: list[str] = []
    with _watched(network, found.append):
        y, cache = network.forward(x, mode)
        value, loss_cache = loss.forward(y, target(y))
        dy = loss.backward(loss_cache)
        if not finite(value, dy):
            found.append("the loss")
        if mode.train:
            network.backward(dy, cache, need_dx=False)
    return found[0] if found else None


@contextmanager
def _watched(network: Graph, tell: Callable[[str], None]) -> Iterator[None]:
    """Layers that tell of an output, an input's gradient or a parameter's gradient that isn't finite."""
    layers = {name: layer for name, layer in network.named_layers() if not isinstance(layer, Graph)}
    for name, layer in layers.items():
        _watch(name, layer, tell)
    try:
        yield
    finally:
        for layer in layers.values():
            vars(layer).pop("forward", None)
            vars(layer).pop("backward", None)


def _watch(name: str, layer: Layer, tell: Callable[[str], None]) -> None:
    forward, backward = layer.forward, layer.backward

    def watched_forward(x: Tensor, mode: Mode) -> Any:
        y, cache = forward(x, mode)
        if not finite(y):
            tell(f"the output of {name}")
        return y, cache

    def watched_backward(dy: Tensor, cache: Any, **needs: bool) -> Tensor | None:
        dx = backward(dy, cache, **needs)
        for parameter_name, parameter in layer.named_parameters():
            if not finite(parameter.grad):
                tell(f"the gradient of {name}.{parameter_name}")
        if not finite(dx):
            tell(f"the gradient of the input of {name}")
        return dx

    vars(layer).update(forward=watched_forward, backward=watched_backward)
