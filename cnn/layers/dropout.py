"""Dropout: noise in training, the identity in evaluation. Derived in docs/dropout.md."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from cnn import ops
from cnn.arguments import UnitInterval
from cnn.layer import Cache, Layer, Mode, Shape
from cnn.layers.windowed import check_axes


class Dropout(Layer):
    """In training, set each value to zero with probability p and scale the others up to preserve the mean.

    Forward:  y = x * m / (1 - p),  m = 0 with probability p, else 1; in evaluation y = x
    Backward: dx = dy * m / (1 - p); in evaluation dx = dy

    As `torch.nn.Dropout`. m is drawn from the mode's generator, or from torch's default if it has none.
    Shapes: x, y, m [C, *S, N]. Source: Srivastava et al. 2014, "Dropout", section 4, scaled in training (section 10).
    """

    kind = "dropout"

    def __init__(self, p: UnitInterval = 0.5) -> None:
        self.p = p

    def flops(self, input_shape: Shape) -> int:
        return 0

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        if not mode.train or self.p == 0:
            return x, mode.keep(None)
        noise = torch.rand(self._noise_shape(x), generator=mode.generator, device=x.device)
        kept = noise >= self.p
        return self._thin(x, kept), mode.keep(kept)

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        (kept,) = cache.take()
        if not need_dx:
            return None
        return dy if kept is None else self._thin(dy, kept)

    def _thin(self, values: Tensor, kept: Tensor) -> Tensor:
        factor = kept * (1 / (1 - self.p) if self.p < 1 else 0.0)  # of whole channels this is a small tensor
        return ops.empty(tuple(values.shape), like=values).copy_(values).mul_(factor)

    def _noise_shape(self, x: Tensor) -> Shape:
        return tuple(x.shape)


class ChannelDropout(Dropout):
    """In training, set whole channels to zero with probability p and scale the others up to preserve the mean.

    Forward:  y[c, p, n] = x[c, p, n] * m[c, n] / (1 - p),  m = 0 with probability p, else 1; in evaluation y = x
    Backward: dx[c, p, n] = dy[c, p, n] * m[c, n] / (1 - p); in evaluation dx = dy

    As `torch.nn.Dropout2d` and `torch.nn.Dropout3d`. Shapes: x, y [C, *S, N], m [C, N].
    Raises ShapeError for inputs with other axes.
    Source: Tompson et al. 2015, "Efficient object localization using convolutional networks", section 3.2.
    """

    axes: ClassVar[int]

    def output_shape(self, input_shape: Shape) -> Shape:
        check_axes(self.axes, input_shape)
        return input_shape

    def _noise_shape(self, x: Tensor) -> Shape:
        return x.shape[0], *(1,) * self.axes, x.shape[-1]


class Dropout2d(ChannelDropout):
    __doc__ = ChannelDropout.__doc__
    kind = "dropout2d"
    axes = 2


class Dropout3d(ChannelDropout):
    __doc__ = ChannelDropout.__doc__
    kind = "dropout3d"
    axes = 3
