"""Pooling. One implementation serves any number of spatial axes; the classes only name it."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from cnn import ops
from cnn.arguments import PositivePerAxis
from cnn.layer import Cache, Layer, Mode, Shape
from cnn.layers.windowed import make_window, slide


class MaxPool(Layer):
    """Take the largest value in each window, as `torch.nn.MaxPool*d` does; `stride` is the kernel's size by default.

    Forward:  y[c, p, n] = max over k of x[c, p * stride + k, n], and k* the k that wins (the first of equals)
    Backward: dx[c, i, n] = sum over all p with p * stride + k*[c, p, n] = i of dy[c, p, n]

    Shapes: x [C, *S, N], y [C, *So, N] with So = (S - K) // stride + 1. A NaN wins its window.
    Raises ShapeError where the input has other axes or is smaller than the kernel.
    Source: LeCun et al. 1998, "Gradient-based learning applied to document recognition", section II; in its form with a
    maximum, Ranzato et al. 2007, "Unsupervised learning of invariant feature hierarchies", section 2.
    """

    axes: ClassVar[int]

    def __init__(self, kernel_size: PositivePerAxis, stride: PositivePerAxis | None = None) -> None:
        self.window = make_window(self.axes, kernel_size, kernel_size if stride is None else stride, padding=0)

    def output_shape(self, input_shape: Shape) -> Shape:
        return input_shape[0], *slide(self.window, input_shape)

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        y, winner = ops.max_pool(x, self.window)
        return y, mode.keep(winner, x.shape[1:-1])

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        winner, size = cache.take()
        return ops.max_pool_backward(dy, winner, size, self.window) if need_dx else None


class MaxPool2d(MaxPool):
    __doc__ = MaxPool.__doc__
    kind = "max_pool2d"
    axes = 2


class MaxPool3d(MaxPool):
    __doc__ = MaxPool.__doc__
    kind = "max_pool3d"
    axes = 3
