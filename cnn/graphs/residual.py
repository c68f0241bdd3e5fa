"""A graph that adds its input to its output. How their gradients add up is derived in docs/graphs.md."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from cnn import ops
from cnn.graphs.graph import Graph, Layers, Visit, inside, mode_of
from cnn.graphs.sequential import Sequential
from cnn.layer import Cache, Layer, Mode, Shape, ShapeError
from cnn.layers.conv import Conv1d, Conv2d, Conv3d
from cnn.layers.linear import Linear
from cnn.layers.norm import BatchNorm


class Residual(Graph):
    """Add the output of some layers, the body, to x itself, or to that of a shortcut.

    Forward:  y = body(x) + shortcut(x)
    Backward: dx = body'(dy) + shortcut'(dy): x is used twice, so its gradients add up

    `shortcut` is `identity`, a list of layers, or `auto`: the identity if the shapes agree, else a 1x1 convolution
    with a matching stride, without bias, and batch_norm (for features without spatial axes a linear layer).
    Shapes: x [C, *S, N], y as the body's output. Raises ShapeError if body and shortcut give different shapes.
    Source: He et al. 2016, "Deep residual learning for image recognition", eq. 1 and 2.
    """

    kind = "residual"

    def __init__(self, body: Layers, shortcut: Literal["auto", "identity"] | Layers = "auto") -> None:
        parts: dict[str, Layer] = {"body": Sequential(body)}
        if not isinstance(shortcut, str):
            parts["shortcut"] = Sequential(shortcut)
        super().__init__(parts)
        self.automatic = shortcut == "auto"

    def arguments(self) -> dict[str, Any]:
        parts: dict[str, Any] = {name: part.entries() for name, part in self.layers.items() if isinstance(part, Graph)}
        given = {} if self.automatic else {"shortcut": parts.get("shortcut", "identity")}
        return {"body": parts["body"], **given}

    def build(self, input_shape: Shape) -> Shape:
        shape = self.output_shape(input_shape)
        if self.automatic and shape != input_shape:
            self.layers.setdefault("shortcut", projection(input_shape, shape))
        return super().build(input_shape)

    def trace(self, input_shape: Shape, visit: Visit) -> Shape:
        shape = inside("body", visit, self.layers["body"], input_shape)
        other = input_shape
        if "shortcut" in self.layers:
            other = inside("shortcut", visit, self.layers["shortcut"], input_shape)
        elif self.automatic and shape != input_shape:  # not built yet
            other = projection(input_shape, shape).output_shape(input_shape)
        if other != shape:
            raise ShapeError(f"has a body that gives {list(shape)} and a shortcut that gives {list(other)}")
        return shape

    def propagate_gain(self, gain: float) -> float:
        gains = [layer.propagate_gain(gain) for layer in self.layers.values()]
        return gains[0]

    def flops(self, input_shape: Shape) -> int:
        return super().flops(input_shape) + Layer.flops(self, input_shape)

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        body, shortcut, cache = self.branches(x, mode)
        return ops.add(body, shortcut), cache

    def branches(self, x: Tensor, mode: Mode) -> tuple[Tensor, Tensor, Cache]:
        """The two outputs that are added."""
        parts = [layer.forward(x, mode_of(layer, mode)) for layer in self.layers.values()]
        shortcut = parts[1][0] if len(parts) > 1 else x
        return parts[0][0], shortcut, mode.keep(*(part[1] for part in parts))

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        gradients = [
            layer.backward(dy, inner_cache, need_dx=need_dx, need_dparams=need_dparams and not layer.frozen)
            for layer, inner_cache in zip(self.layers.values(), cache.take(), strict=True)
        ]
        if not need_dx:
            return None
        shortcut: Any = gradients[1] if len(gradients) > 1 else dy
        body: Any = gradients[0]
        return ops.add(body, shortcut)


def projection(input_shape: Shape, output_shape: Shape) -> Sequential:
    """The shortcut if the identity doesn't fit: a 1x1 convolution with strides, or a linear layer, and batch_norm.

    Raises ShapeError if no stride leads from the input size to the output size.
    """
    if len(input_shape) == len(output_shape) == 1:
        return Sequential([Linear(output_shape[0], bias=False), BatchNorm()])
    strides = []
    for before, after in zip(input_shape[1:], output_shape[1:], strict=False):
        stride = (before - 1) // after + 1  # the smallest that leaves at most `after` positions
        strides += [stride] if (before - 1) // stride + 1 == after else []
    axes = len(input_shape) - 1
    if len(output_shape) != len(input_shape) or len(strides) != axes:
        raise ShapeError(
            f"has a body that turns {list(input_shape)} into {list(output_shape)}, which no stride of a 1x1 "
            "convolution does: give the shortcut as a list of layers"
        )
    conv = {1: Conv1d, 2: Conv2d, 3: Conv3d}[axes]
    return Sequential([conv(output_shape[0], 1, stride=strides, bias=False), BatchNorm()])
