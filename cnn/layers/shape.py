"""Layers that change shapes, not values. Derived in docs/shapes.md."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from torch import Tensor

from cnn import ops
from cnn.arguments import LARGEST, Positive
from cnn.faults import ConfigError, Fault
from cnn.layer import Cache, Layer, Mode, Shape, ShapeError
from cnn.layers.windowed import check_axes

Extent = Annotated[int, Field(ge=-1, le=LARGEST)]


class Identity(Layer):
    """Do nothing: y = x, dx = dy. As a branch of concat it passes the input on.

    Shapes: x, y [C, *S, N].
    """

    kind = "identity"

    def flops(self, input_shape: Shape) -> int:
        return 0

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        return x, mode.keep()

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        cache.take()
        return dy if need_dx else None


class Reshape(Layer):
    """Reshape the features of each example, in the order of `torch.reshape`; a view, since the batch is last.

    Forward:  y = x viewed as [*shape, N]; one extent of the shape may be -1, which is inferred
    Backward: dx = dy viewed as [C, *S, N]

    Shapes: x [C, *S, N], y [*shape, N]. Raises ShapeError if the numbers of values differ.
    """

    kind = "reshape"

    def __init__(self, shape: Annotated[Sequence[Extent], Field(min_length=1, max_length=4)]) -> None:
        if 0 in shape or sum(extent == -1 for extent in shape) > 1:
            raise ConfigError([Fault("shape", f"{list(shape)} is not allowed, give extents >= 1 and at most one -1")])
        self.shape = tuple(shape)

    def output_shape(self, input_shape: Shape) -> Shape:
        values = math.prod(input_shape)
        known = math.prod(extent for extent in self.shape if extent > 0)
        shape = tuple(values // known if extent == -1 else extent for extent in self.shape)
        if math.prod(shape) != values or not values:
            raise ShapeError(f"{list(self.shape)} can't hold the {values} values of the input {list(input_shape)}")
        return shape

    def flops(self, input_shape: Shape) -> int:
        return 0

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        return x.reshape(*self.output_shape(tuple(x.shape[:-1])), x.shape[-1]), mode.keep(x.shape)

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        (shape,) = cache.take()
        return dy.reshape(shape) if need_dx else None


class Flatten(Reshape):
    """Put all features of an example on one axis, in the order of `torch.nn.Flatten`; a view, since the batch is last.

    Forward:  y = x viewed as [C * prod(S), N]
    Backward: dx = dy viewed as [C, *S, N]

    Shapes: x [C, *S, N], y [C * prod(S), N].
    """

    kind = "flatten"

    def __init__(self) -> None:
        super().__init__([-1])


class PixelShuffle(Layer):
    """Turn r * r channels into r times as many rows and columns, with r = `upscale_factor`: `torch.nn.PixelShuffle`.

    Forward:  y[c, h * r + i, w * r + j, n] = x[c * r * r + i * r + j, h, w, n]
    Backward: dx[c * r * r + i * r + j, h, w, n] = dy[c, h * r + i, w * r + j, n]

    Shapes: x [C * r * r, H, W, N], y [C, H * r, W * r, N].
    Raises ShapeError if r * r doesn't divide the channels, and for inputs with other axes.
    Source: Shi et al. 2016, "Real-time single image and video super-resolution using an efficient sub-pixel
    convolutional neural network", eq. 4.
    """

    kind = "pixel_shuffle"

    def __init__(self, upscale_factor: Positive) -> None:
        self.upscale_factor = upscale_factor

    def output_shape(self, input_shape: Shape) -> Shape:
        check_axes(2, input_shape)
        r = self.upscale_factor
        channels, height, width = input_shape
        if channels % (r * r):
            raise ShapeError(f"has upscale_factor {r}, whose square doesn't divide the input's {channels} channels")
        return channels // (r * r), height * r, width * r

    def flops(self, input_shape: Shape) -> int:
        return 0

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        y = ops.empty((*self.output_shape(tuple(x.shape[:-1])), x.shape[-1]), like=x)
        self._by_phases(y).copy_(self._by_channels(x))
        return y, mode.keep(tuple(x.shape))

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        (shape,) = cache.take()
        if not need_dx:
            return None
        dx = ops.empty(shape, like=dy)
        self._by_channels(dx).copy_(self._by_phases(dy))
        return dx

    def _by_channels(self, x: Tensor) -> Tensor:
        """x as [C, r, r, H, W, N]."""
        r = self.upscale_factor
        return x.view(-1, r, r, *x.shape[1:])

    def _by_phases(self, y: Tensor) -> Tensor:
        """y as [C, r, r, H, W, N]: the phases i and j of a row and a column come first."""
        r = self.upscale_factor
        channels, height, width, batch = y.shape
        return y.view(channels, height // r, r, width // r, r, batch).permute(0, 2, 4, 1, 3, 5)
