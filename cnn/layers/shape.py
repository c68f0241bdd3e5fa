"""Layers that change shapes, not values. The backward pass of upsampling is derived in docs/shapes.md."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from cnn import ops
from cnn.arguments import LARGEST, PositivePerAxis
from cnn.faults import ConfigError, Fault
from cnn.layer import Cache, Layer, Mode, Shape, ShapeError

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


class Upsample(Layer):
    """Repeat each value `scale_factor` times along each spatial axis, as `torch.nn.Upsample(mode="nearest")` does.

    Forward:  y[c, i, n] = x[c, i // scale, n]
    Backward: dx[c, p, n] = sum over all i with i // scale = p of dy[c, i, n]

    Shapes: x [C, *S, N], y [C, *(S * scale), N]; the scale is one number, or one per axis.
    Raises ShapeError for inputs with no spatial axes or another number of them.
    """

    kind = "upsample"

    def __init__(self, scale_factor: PositivePerAxis, mode: Literal["nearest"] = "nearest") -> None:
        self.scale_factor = scale_factor

    def output_shape(self, input_shape: Shape) -> Shape:
        scale = self._scale(len(input_shape) - 1, input_shape)
        return input_shape[0], *(extent * factor for extent, factor in zip(input_shape[1:], scale, strict=True))

    def flops(self, input_shape: Shape) -> int:
        return 0

    def _scale(self, axes: int, input_shape: Shape) -> Shape:
        scale = (self.scale_factor,) * axes if isinstance(self.scale_factor, int) else tuple(self.scale_factor)
        if not axes or len(scale) != axes:
            wanted = f"{len(scale)} spatial axes" if axes else "spatial axes"
            raise ShapeError(f"takes channels and {wanted}, got input {list(input_shape)}")
        return scale

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        channels, *size, batch = x.shape
        y = ops.empty((*self.output_shape(tuple(x.shape[:-1])), batch), like=x)
        repeated = self._by_repeats(y, tuple(size))  # [C, S1, scale1, S2, scale2, ..., N]
        source = x.view(channels, *(part for extent in size for part in (extent, 1)), batch)
        repeated.copy_(source)
        return y, mode.keep(tuple(size))

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        (size,) = cache.take()
        if not need_dx:
            return None
        return self._by_repeats(dy.contiguous(), size).sum([2 * axis + 2 for axis in range(len(size))])

    def _by_repeats(self, y: Tensor, size: Shape) -> Tensor:
        """The output with a separate axis for the repeats along each axis."""
        pairs = zip(size, self._scale(len(size), size), strict=True)
        return y.view(y.shape[0], *(part for pair in pairs for part in pair), y.shape[-1])
