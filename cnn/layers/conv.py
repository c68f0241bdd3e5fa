"""Convolutions. One implementation serves any number of spatial axes; the classes only set it.

The backward pass is derived in docs/convolution.md.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar, Literal

from torch import Tensor

from cnn import ops
from cnn.arguments import NonNegativePerAxis, Positive, PositivePerAxis
from cnn.faults import ConfigError, Fault
from cnn.initializers import Scheme
from cnn.layer import Buffer, Cache, Mode, Parameter, Shape, ShapeError
from cnn.layers.weighted import Weighted
from cnn.layers.windowed import make_window, show_sizes, slide

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


class Conv(Weighted):
    """Cross-correlate the input with O learned filters, as `torch.nn.Conv*d` does.

    Forward:  y[o, p, n] = bias[o] + sum over c, k of weight[o, c, k] * x[c, p * stride + k * dilation - padding, n]
    Backward: dx[c, i, n] = sum over o and all p, k with p * stride + k * dilation - padding = i
                            of weight[o, c, k] * dy[o, p, n],
              dweight[o, c, k] = sum over p, n of dy[o, p, n] * x[c, p * stride + k * dilation - padding, n],
              dbias[o] = sum over p, n of dy[o, p, n]

    With `groups` G, c runs over the C / G channels of o's group. Outside x there are zeros, or x is extended according
    to `padding_mode`: mirrored without the border (reflect), with the border repeated (replicate), or wrapped around
    (circular). `padding: same` preserves the size, `padding: valid` is none.
    Shapes: x [C, *S, N], weight [O, C / G, *K], bias [O],
            y [O, *So, N] with So = (S + 2 padding - dilation (K - 1) - 1) // stride + 1.
    Sizes, strides, dilations and paddings are one number, or one per axis.
    Raises ShapeError if the input has other axes, is smaller than the kernel, or has channels that G doesn't divide.
    Source: Dumoulin & Visin 2016, "A guide to convolution arithmetic for deep learning", sections 2, 4 and 5.1.
    """

    axes: ClassVar[int]

    def __init__(
        self,
        out_channels: Positive,
        kernel_size: PositivePerAxis,
        stride: PositivePerAxis = 1,
        padding: NonNegativePerAxis | Literal["same", "valid"] = 0,
        dilation: PositivePerAxis = 1,
        groups: Positive = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        init: Scheme = "kaiming_normal",
    ) -> None:
        super().__init__(bias, init)
        check_divisible(out_channels, groups)
        self.out_channels = out_channels
        self.groups = groups
        self.padding_mode = padding_mode
        self.window = make_window(self.axes, kernel_size, stride, padding, dilation)
        none = (0,) * self.axes
        self._bare = self.window if padding_mode == "zeros" else replace(self.window, before=none, after=none)

    def output_shape(self, input_shape: Shape) -> Shape:
        size = slide(self.window, input_shape)
        check_groups(input_shape[0], self.groups)
        self._check_padding_mode(input_shape)
        return self.out_channels, *size

    def _check_padding_mode(self, input_shape: Shape) -> None:
        if self.padding_mode in ("zeros", "replicate"):
            return
        room = min(
            s - max(b, a) for s, b, a in zip(input_shape[1:], self.window.before, self.window.after, strict=True)
        )
        if room < (1 if self.padding_mode == "reflect" else 0):
            raise ShapeError(
                f"{self.padding_mode} padding {show_sizes(self.window.before)} reaches beyond the input "
                f"{list(input_shape)}: use less padding, or replicate"
            )

    def declare(self, input_shape: Shape) -> dict[str, Parameter | Buffer]:
        shape = (self.out_channels, input_shape[0] // self.groups, *self.window.kernel)
        taps = self.window.tap_count
        return self._declare(
            shape, self.out_channels, fan_in=shape[1] * taps, fan_out=self.out_channels // self.groups * taps
        )

    def flops(self, input_shape: Shape) -> int:
        terms = input_shape[0] // self.groups * self.window.tap_count
        return (2 * terms - 1 + self.has_bias) * math.prod(self.output_shape(input_shape))

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        bias = None if self.bias is None else self.bias.data
        return ops.conv(self._padded(x), self.weight.data, bias, self._bare, self.groups), mode.keep(x)

    def _padded(self, x: Tensor) -> Tensor:
        """x with its border, for the window without padding."""
        if self.padding_mode == "zeros":
            return x
        return ops.continued(x, self.window.before, self.window.after, self.padding_mode)

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        (x,) = cache.take()
        if need_dparams:
            dbias = None if self.bias is None else self.bias.grad
            ops.add_conv_backward_weight(self._padded(x), dy, self._bare, self.weight.grad, self.groups, dbias)
        if not need_dx:
            return None
        size = tuple(x.shape[1:-1])
        if self.padding_mode == "zeros":
            return ops.conv_backward_input(dy, self.weight.data, size, self.window, self.groups)
        dx = ops.conv_backward_input(dy, self.weight.data, self.window.padded(size), self._bare, self.groups)
        return ops.continued_backward(dx, size, self.window.before, self.window.after, self.padding_mode)


def check_divisible(out_channels: int, groups: int) -> None:
    if out_channels % groups:
        raise ConfigError([Fault("groups", f"{groups} doesn't divide out_channels {out_channels}")])


def check_groups(channels: int, groups: int) -> None:
    if channels % groups:
        raise ShapeError(f"has {groups} groups, which don't divide the input's {channels} channels")


class Conv1d(Conv):
    __doc__ = Conv.__doc__
    kind = "conv1d"
    axes = 1


class Conv2d(Conv):
    __doc__ = Conv.__doc__
    kind = "conv2d"
    axes = 2


class Conv3d(Conv):
    __doc__ = Conv.__doc__
    kind = "conv3d"
    axes = 3
