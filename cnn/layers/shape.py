"""Layers that change shapes and no values."""

from __future__ import annotations

import math

from torch import Tensor

from cnn.layer import Cache, Layer, Mode, Shape


class Flatten(Layer):
    """Put all features of an example into one axis, in the order of `torch.nn.Flatten`; a view, as the batch is last.

    Forward:  y = x seen as [C * prod(S), N]
    Backward: dx = dy seen as [C, *S, N]

    Shapes: x [C, *S, N], y [C * prod(S), N].
    """

    kind = "flatten"

    def output_shape(self, input_shape: Shape) -> Shape:
        return (math.prod(input_shape),)

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        return x.reshape(-1, x.shape[-1]), mode.keep(x.shape)

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        (shape,) = cache.take()
        return dy.reshape(shape) if need_dx else None
