"""Pooling. One implementation serves any number of spatial axes; the classes only set it.

The backward passes are derived in docs/pooling.md.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from cnn import ops
from cnn.arguments import NonNegativePerAxis, PositivePerAxis
from cnn.faults import ConfigError, Fault
from cnn.layer import Cache, Layer, Mode, Shape, ShapeError
from cnn.layers.windowed import check_axes, make_window, show_sizes, slide
from cnn.ops import Window


class Pool(Layer):
    """The base of pools: a window, whose last position may extend beyond the input with `ceil_mode`."""

    axes: ClassVar[int]
    window: Window
    ceil_mode: bool

    def output_shape(self, input_shape: Shape) -> Shape:
        check_axes(self.axes, input_shape)
        return input_shape[0], *slide(self.window_on(input_shape[1:]), input_shape)

    def window_on(self, size: Shape) -> Window:
        """The window for inputs of this size."""
        return self.window.rounded_up(size) if self.ceil_mode else self.window

    def flops(self, input_shape: Shape) -> int:
        return self.window.tap_count * math.prod(self.output_shape(input_shape))


def check_padding(window: Window) -> None:
    """Raise ConfigError if padding is so wide that a window could miss the input, as PyTorch does."""
    if any(2 * before > span for before, span in zip(window.before, window.span, strict=True)):
        problem = f"{show_sizes(window.before)} is more than half of the kernel, {show_sizes(window.span)}"
        raise ConfigError([Fault("padding", problem)])


class MaxPool(Pool):
    """Take the largest value in each window, as `torch.nn.MaxPool*d` does; `stride` defaults to the kernel's size.

    Forward:  y[c, p, n] = max over k of x[c, p * stride + k * dilation - padding, n], and k* the k that wins (the first
              of equals); padding never wins
    Backward: dx[c, i, n] = sum over all p with p * stride + k*[c, p, n] * dilation - padding = i of dy[c, p, n]

    Shapes: x [C, *S, N], y [C, *So, N] with So = (S + 2 padding - dilation (K - 1) - 1) // stride + 1, rounded up
    with `ceil_mode`. A NaN wins its window. Raises ShapeError if the input has other axes or is smaller than the
    kernel.
    Source: LeCun et al. 1998, "Gradient-based learning applied to document recognition", section II; in its form with a
    maximum, Ranzato et al. 2007, "Unsupervised learning of invariant feature hierarchies", section 2.
    """

    def __init__(
        self,
        kernel_size: PositivePerAxis,
        stride: PositivePerAxis | None = None,
        padding: NonNegativePerAxis = 0,
        dilation: PositivePerAxis = 1,
        ceil_mode: bool = False,
    ) -> None:
        self.window = make_window(self.axes, kernel_size, stride, padding, dilation)
        self.ceil_mode = ceil_mode
        check_padding(self.window)

    def output_shape(self, input_shape: Shape) -> Shape:
        shape = super().output_shape(input_shape)
        if not self.window_on(input_shape[1:]).always_covers(input_shape[1:]):
            raise ShapeError(
                f"has windows that lie entirely in the padding on the input {list(input_shape)}: "
                "use less padding or dilation"
            )
        return shape

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        size = tuple(x.shape[1:-1])
        y, winner = ops.max_pool(x, self.window_on(size))
        return y, mode.keep(winner, size)

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        winner, size = cache.take()
        return ops.max_pool_backward(dy, winner, size, self.window_on(size)) if need_dx else None


class AvgPool(Pool):
    """Take the mean of each window, as `torch.nn.AvgPool*d` does; `stride` defaults to the kernel's size.

    Forward:  y[c, p, n] = 1 / m[p] * sum over k of x[c, p * stride + k - padding, n], zero outside x
    Backward: dx[c, i, n] = sum over all p, k with p * stride + k - padding = i of dy[c, p, n] / m[p]

    m[p] is the number of places in the window: padding counts with `count_include_pad`, places beyond it never do.
    Shapes: x [C, *S, N], y [C, *So, N] with So = (S + 2 padding - K) // stride + 1, rounded up with `ceil_mode`.
    Raises ShapeError if the input has other axes or is smaller than the kernel.
    Source: LeCun et al. 1998, "Gradient-based learning applied to document recognition", section II.
    """

    def __init__(
        self,
        kernel_size: PositivePerAxis,
        stride: PositivePerAxis | None = None,
        padding: NonNegativePerAxis = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        self.window = make_window(self.axes, kernel_size, stride, padding)
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        check_padding(self.window)

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        size = tuple(x.shape[1:-1])
        y = ops.window_sum(x, self.window_on(size))
        y /= self._places(size, like=x)
        return y, mode.keep(size)

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        (size,) = cache.take()
        if not need_dx:
            return None
        share = torch.div(dy, self._places(size, like=dy), out=ops.empty(tuple(dy.shape), like=dy))
        return ops.window_sum_backward(share, size, self.window_on(size))

    def _places(self, size: Shape, like: Tensor) -> Tensor:
        """The number of places in each window: the product over the axes, [*So, 1]."""
        places = like.new_ones(())
        window = self.window
        output_size = self.window_on(size).output_size(size)
        for extent, count, kernel, stride, padding in zip(
            size, output_size, window.kernel, window.stride, window.before, strict=True
        ):
            counted = padding if self.count_include_pad else 0
            start = torch.arange(count, device=like.device) * stride - padding
            end = (start + kernel).clamp(max=extent + counted)
            places = places[..., None] * (end - start.clamp(min=-counted))
        return places[..., None]


class GlobalAvgPool(Layer):
    """Take the mean of each channel, as `torch.nn.AdaptiveAvgPool*d(1)` and a flatten do.

    Forward:  y[c, n] = 1 / L * sum over p of x[c, p, n],  L = prod(S)
    Backward: dx[c, p, n] = dy[c, n] / L

    Shapes: x [C, *S, N], y [C, N]. Raises ShapeError for inputs without spatial axes.
    Source: Lin, Chen & Yan 2014, "Network in network", section 3.2.
    """

    kind = "global_avg_pool"

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) < 2:
            raise ShapeError(f"takes [channels, ...] with spatial axes, got input {list(input_shape)}")
        return input_shape[:1]

    def flops(self, input_shape: Shape) -> int:
        return math.prod(input_shape)

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        return x.flatten(1, -2).mean(1), mode.keep(tuple(x.shape))

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        (shape,) = cache.take()
        if not need_dx:
            return None
        dx = ops.empty(shape, like=dy)
        rows = dx.flatten(1, -2)  # [C, L, N], a view
        rows.copy_((dy / rows.shape[1])[:, None])
        return dx


class MaxPool1d(MaxPool):
    __doc__ = MaxPool.__doc__
    kind = "max_pool1d"
    axes = 1


class MaxPool2d(MaxPool):
    __doc__ = MaxPool.__doc__
    kind = "max_pool2d"
    axes = 2


class MaxPool3d(MaxPool):
    __doc__ = MaxPool.__doc__
    kind = "max_pool3d"
    axes = 3


class AvgPool1d(AvgPool):
    __doc__ = AvgPool.__doc__
    kind = "avg_pool1d"
    axes = 1


class AvgPool2d(AvgPool):
    __doc__ = AvgPool.__doc__
    kind = "avg_pool2d"
    axes = 2


class AvgPool3d(AvgPool):
    __doc__ = AvgPool.__doc__
    kind = "avg_pool3d"
    axes = 3
