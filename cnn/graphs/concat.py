"""A graph whose branches share an input. How their gradients add up is derived in docs/graphs.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field, WithJsonSchema
from torch import Tensor

from cnn import ops
from cnn.graphs.graph import Graph, Layers, Visit, inside, mode_of
from cnn.graphs.sequential import Sequential
from cnn.layer import Cache, Mode, Shape, ShapeError

Branches = Annotated[
    Sequence[Layers], Field(min_length=1), WithJsonSchema({"description": "a list of branches, each a list of layers"})
]


class Concat(Graph):
    """Apply several branches to the same x and concatenate their outputs along the channels. Branches: 1, 2, ...

    Forward:  y = [branch_1(x); branch_2(x); ...]
    Backward: dx = sum over b of branch_b'(dy_b), where dy_b are the channels of dy from branch b

    Shapes: x [C, *S, N], y [sum of the branches' channels, *So, N]. Raises ShapeError if their sizes differ.
    Source: Szegedy et al. 2015, "Going deeper with convolutions", section 4; with an `identity` branch, Huang et al.
    2017, "Densely connected convolutional networks", eq. 2.
    """

    kind = "concat"

    def __init__(self, branches: Branches) -> None:
        if not branches:
            raise ValueError("concat needs at least one branch")
        super().__init__({str(number): Sequential(branch) for number, branch in enumerate(branches, start=1)})

    def arguments(self) -> dict[str, Any]:
        return {"branches": [branch.entries() for branch in self.layers.values() if isinstance(branch, Graph)]}

    def trace(self, input_shape: Shape, visit: Visit) -> Shape:
        shapes = [inside(name, visit, layer, input_shape) for name, layer in self.layers.items()]
        if len({shape[1:] for shape in shapes}) > 1:
            sizes = ", ".join(str(list(shape)) for shape in shapes)
            raise ShapeError(f"has branches of different sizes, {sizes}: all but the channels have to agree")
        return sum(shape[0] for shape in shapes), *shapes[0][1:]

    def propagate_gain(self, gain: float) -> float:
        gains = [layer.propagate_gain(gain) for layer in self.layers.values()]
        return gains[0]

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        parts = [layer.forward(x, mode_of(layer, mode)) for layer in self.layers.values()]
        values = [part[0] for part in parts]
        channels = [value.shape[0] for value in values]
        y = torch.cat(values, out=ops.empty((sum(channels), *values[0].shape[1:]), like=x))
        return y, mode.keep(channels, *(part[1] for part in parts))

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        channels, *caches = cache.take()
        dx: Tensor | None = None
        for layer, piece, inner_cache in zip(self.layers.values(), _split(dy, channels), caches, strict=True):
            trained = need_dparams and not layer.frozen
            gradient = layer.backward(piece, inner_cache, need_dx=need_dx, need_dparams=trained)
            if gradient is not None:
                dx = gradient if dx is None else ops.add(dx, gradient)
        return dx


def _split(tensor: Tensor, channels: Sequence[int]) -> list[Tensor]:
    """Split the channels into parts of these lengths (views)."""
    ends = [sum(channels[: number + 1]) for number in range(len(channels))]
    return [tensor[end - length : end] for end, length in zip(ends, channels, strict=True)]
