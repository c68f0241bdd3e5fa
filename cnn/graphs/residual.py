"""Graphs in which x goes several ways. How gradients meet again is derived in docs/graphs.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, WithJsonSchema
from torch import Tensor

from cnn import ops
from cnn.graph import Graph, Layers, Repeat, Sequential, Visit, inside
from cnn.layer import Cache, Layer, Mode, Shape, ShapeError
from cnn.layers.conv import Conv1d, Conv2d, Conv3d
from cnn.layers.linear import Linear
from cnn.layers.norm import BatchNorm

Branches = Annotated[
    Sequence[Layers], Field(min_length=1), WithJsonSchema({"description": "a list of branches, each a list of layers"})
]


class Residual(Graph):
    """Add what some layers, the body, make of x to x itself, or to what a shortcut makes of it.

    Forward:  y = body(x) + shortcut(x)
    Backward: dx = body'(dy) + shortcut'(dy): where x goes two ways, its gradients add up

    `shortcut` is `identity`, a list of layers, or `auto`: the identity where the shapes agree, else a 1x1 convolution
    with the stride that fits, without bias, and batch_norm (for features without spatial axes a linear layer).
    Shapes: x [C, *S, N], y as the body's output. Raises ShapeError where body and shortcut give different shapes.
    Source: He et al. 2016, "Deep residual learning for image recognition", eq. 1 and 2.
    """

    kind = "residual"

    def __init__(self, body: Layers, shortcut: Literal["auto", "identity"] | Layers = "auto") -> None:
        parts: dict[str, Layer] = {"body": Sequential(body)}
        if not isinstance(shortcut, str):
            parts["shortcut"] = Sequential(shortcut)
        super().__init__(parts)
        self.automatic = shortcut == "auto"

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

    def precede(self, gain: float) -> float:
        gains = [layer.precede(gain) for layer in self.layers.values()]
        return gains[0]

    def flops(self, input_shape: Shape) -> int:
        return super().flops(input_shape) + Layer.flops(self, input_shape)

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        parts = [layer.forward(x, mode) for layer in self.layers.values()]
        values = [part[0] for part in parts]
        return add(values[0], values[1] if len(values) > 1 else x), mode.keep(*(part[1] for part in parts))

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        gradients = [
            layer.backward(dy, inner_cache, need_dx=need_dx, need_dparams=need_dparams)
            for layer, inner_cache in zip(self.layers.values(), cache.take(), strict=True)
        ]
        if not need_dx:
            return None
        shortcut: Any = gradients[1] if len(gradients) > 1 else dy
        body: Any = gradients[0]
        return add(body, shortcut)


def projection(input_shape: Shape, output_shape: Shape) -> Sequential:
    """The shortcut where the identity doesn't fit: a 1x1 convolution with strides, or a linear layer, and batch_norm.

    Raises ShapeError where no stride leads from the one size to the other.
    """
    if len(input_shape) == len(output_shape) == 1:
        return Sequential([Linear(output_shape[0], bias=False), BatchNorm()])
    strides = []
    for before, after in zip(input_shape[1:], output_shape[1:], strict=False):
        stride = (before - 1) // after + 1  # the smallest that leaves no more
        strides += [stride] if (before - 1) // stride + 1 == after else []
    axes = len(input_shape) - 1
    if len(output_shape) != len(input_shape) or len(strides) != axes:
        raise ShapeError(
            f"has a body that makes {list(output_shape)} of {list(input_shape)}, and no stride of a 1x1 convolution "
            "does: give the shortcut as a list of layers"
        )
    conv = {1: Conv1d, 2: Conv2d, 3: Conv3d}[axes]
    return Sequential([conv(output_shape[0], 1, stride=strides, bias=False), BatchNorm()])


class Concat(Graph):
    """Let several branches look at the same x and join their outputs over the channels; branches are named 1, 2, ...

    Forward:  y = [branch_1(x); branch_2(x); ...]
    Backward: dx = sum over b of branch_b'(dy_b), dy_b being the channels of dy that came from branch b

    Shapes: x [C, *S, N], y [sum of the branches' channels, *So, N]. Raises ShapeError where their sizes differ.
    Source: Szegedy et al. 2015, "Going deeper with convolutions", section 4; with an `identity` branch, Huang et al.
    2017, "Densely connected convolutional networks", eq. 2.
    """

    kind = "concat"

    def __init__(self, branches: Branches) -> None:
        if not branches:
            raise ValueError("a concatenation needs at least one branch")
        super().__init__({str(number): Sequential(branch) for number, branch in enumerate(branches, start=1)})

    def trace(self, input_shape: Shape, visit: Visit) -> Shape:
        shapes = [inside(name, visit, layer, input_shape) for name, layer in self.layers.items()]
        if len({shape[1:] for shape in shapes}) > 1:
            told = ", ".join(str(list(shape)) for shape in shapes)
            raise ShapeError(f"has branches of different sizes, {told}: all but the channels have to agree")
        return sum(shape[0] for shape in shapes), *shapes[0][1:]

    def precede(self, gain: float) -> float:
        gains = [layer.precede(gain) for layer in self.layers.values()]
        return gains[0]

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        parts = [layer.forward(x, mode) for layer in self.layers.values()]
        values = [part[0] for part in parts]
        channels = [value.shape[0] for value in values]
        y = torch.cat(values, out=ops.empty((sum(channels), *values[0].shape[1:]), like=x))
        return y, mode.keep(channels, *(part[1] for part in parts))

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        channels, *caches = cache.take()
        dx: Tensor | None = None
        for layer, piece, inner_cache in zip(self.layers.values(), _split(dy, channels), caches, strict=True):
            gradient = layer.backward(piece, inner_cache, need_dx=need_dx, need_dparams=need_dparams)
            if gradient is not None:
                dx = gradient if dx is None else add(dx, gradient)
        return dx


def add(a: Tensor, b: Tensor) -> Tensor:
    """a + b in a tensor of its own: both may be somebody else's."""
    return torch.add(a, b, out=ops.empty(tuple(a.shape), like=a))


def _split(tensor: Tensor, channels: Sequence[int]) -> list[Tensor]:
    """The channels cut into parts of these lengths; views."""
    ends = [sum(channels[: number + 1]) for number in range(len(channels))]
    return [tensor[end - length : end] for end, length in zip(ends, channels, strict=True)]


GRAPHS: dict[str, type[Graph]] = {graph.kind: graph for graph in (Sequential, Repeat, Residual, Concat)}
"""The graphs that a config may name."""
