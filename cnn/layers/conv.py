"""Convolutions. One implementation serves any number of spatial axes; the classes only name it."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from cnn import initializers, ops
from cnn.arguments import NonNegativePerAxis, Positive, PositivePerAxis
from cnn.layer import Buffer, Cache, Layer, Mode, Parameter, Shape
from cnn.layers.windowed import make_window, slide


class Conv(Layer):
    """Cross-correlate the input with O learned filters, as `torch.nn.Conv*d` does.

    Forward:  y[o, p, n] = bias[o] + sum over c, k of weight[o, c, k] * x[c, p * stride + k - padding, n]
    Backward: dx[c, i, n] = sum over o and all p, k with p * stride + k - padding = i of weight[o, c, k] * dy[o, p, n],
              dweight[o, c, k] = sum over p, n of dy[o, p, n] * x[c, p * stride + k - padding, n],
              dbias[o] = sum over p, n of dy[o, p, n]

    Shapes: x [C, *S, N], weight [O, C, *K], bias [O], y [O, *So, N] with So = (S + 2 padding - K) // stride + 1.
    Sizes, strides and paddings are one number, or one for each axis.
    Raises ShapeError where the input has other axes or is smaller than the kernel.
    Source: Dumoulin & Visin 2016, "A guide to convolution arithmetic for deep learning", sections 2 and 4.
    """

    axes: ClassVar[int]
    weight: Parameter
    bias: Parameter | None = None

    def __init__(
        self,
        out_channels: Positive,
        kernel_size: PositivePerAxis,
        stride: PositivePerAxis = 1,
        padding: NonNegativePerAxis = 0,
        bias: bool = True,
    ) -> None:
        self.out_channels = out_channels
        self.window = make_window(self.axes, kernel_size, stride, padding)
        self.has_bias = bias

    def output_shape(self, input_shape: Shape) -> Shape:
        return self.out_channels, *slide(self.window, input_shape)

    def declare(self, input_shape: Shape) -> dict[str, Parameter | Buffer]:
        weight_shape = (self.out_channels, input_shape[0], *self.window.kernel)
        declared: dict[str, Parameter | Buffer] = {
            "weight": Parameter(weight_shape, initializers.kaiming_normal, decay=True)
        }
        if self.has_bias:
            declared["bias"] = Parameter((self.out_channels,), initializers.zeros, decay=False)
        return declared

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        bias = None if self.bias is None else self.bias.data
        return ops.conv(x, self.weight.data, bias, self.window), mode.keep(x)

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        (x,) = cache.take()
        if need_dparams:
            ops.add_conv_backward_weight(x, dy, self.window, self.weight.grad)
            if self.bias is not None:
                self.bias.grad += dy.flatten(1).sum(1)
        return ops.conv_backward_input(dy, self.weight.data, x.shape[1:-1], self.window) if need_dx else None


class Conv2d(Conv):
    __doc__ = Conv.__doc__
    kind = "conv2d"
    axes = 2


class Conv3d(Conv):
    __doc__ = Conv.__doc__
    kind = "conv3d"
    axes = 3
