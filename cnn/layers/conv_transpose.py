"""Transposed convolutions: the adjoint of a convolution, so its code with forward and backward swapped.

Derived in docs/convolution.md.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

from torch import Tensor

from cnn import ops
from cnn.arguments import NonNegativePerAxis, Positive, PositivePerAxis
from cnn.faults import ConfigError, Fault
from cnn.initializers import Scheme
from cnn.layer import Buffer, Cache, Mode, Parameter, Shape, ShapeError, check_size
from cnn.layers.conv import check_divisible, check_groups
from cnn.layers.weighted import Weighted
from cnn.layers.windowed import check_axes, make_window, per_axis, show_sizes


class ConvTranspose(Weighted):
    """Spread each input value over the output with a learned filter, as `torch.nn.ConvTranspose*d` does.

    Forward:  y[o, i, n] = bias[o] + sum over c and all p, k with p * stride + k * dilation - padding = i
                           of weight[c, o, k] * x[c, p, n]
    Backward: dx[c, p, n] = sum over o, k of weight[c, o, k] * dy[o, p * stride + k * dilation - padding, n],
              dweight[c, o, k] = sum over p, n of x[c, p, n] * dy[o, p * stride + k * dilation - padding, n],
              dbias[o] = sum over i, n of dy[o, i, n]

    So y is the input gradient of the convolution from y's shape to x's, and dx is that convolution of dy.
    `output_padding` adds places at the end of y that the convolution's stride would skip.
    Shapes: x [C, *S, N], weight [C, O / groups, *K], bias [O],
            y [O, *So, N] with So = (S - 1) stride - 2 padding + dilation (K - 1) + output_padding + 1.
    Raises ShapeError if the input has other axes or the output would be empty.
    Source: Dumoulin & Visin 2016, "A guide to convolution arithmetic for deep learning", section 4.
    """

    axes: ClassVar[int]

    def __init__(
        self,
        out_channels: Positive,
        kernel_size: PositivePerAxis,
        stride: PositivePerAxis = 1,
        padding: NonNegativePerAxis = 0,
        output_padding: NonNegativePerAxis = 0,
        groups: Positive = 1,
        bias: bool = True,
        dilation: PositivePerAxis = 1,
        init: Scheme = "kaiming_normal",
    ) -> None:
        super().__init__(bias, init)
        check_divisible(out_channels, groups)
        self.out_channels = out_channels
        self.groups = groups
        window = make_window(self.axes, kernel_size, stride, padding, dilation)
        extra = per_axis(self.axes, output_padding=output_padding)["output_padding"]
        limits = tuple(max(pair) for pair in zip(window.stride, window.dilation, strict=True))
        if any(e >= limit for e, limit in zip(extra, limits, strict=True)):
            problem = f"{show_sizes(extra)} has to be smaller than stride or dilation, {show_sizes(limits)}"
            raise ConfigError([Fault("output_padding", problem)])
        self.window = replace(window, after=tuple(a - e for a, e in zip(window.after, extra, strict=True)))

    def output_shape(self, input_shape: Shape) -> Shape:
        check_axes(self.axes, input_shape)
        check_groups(input_shape[0], self.groups)
        size = self._size(input_shape[1:])
        if min(size) < 1:
            raise ShapeError(f"padding leaves an output of {show_sizes(size)} of the input {list(input_shape)}")
        check_size((self.out_channels, *self.window.padded(size)), "pads its output to")
        return self.out_channels, *size

    def _size(self, size: Shape) -> Shape:
        """The input size from which the convolution with this window makes `size`."""
        window = self.window
        return tuple(
            (s - 1) * step + span - b - a
            for s, step, span, b, a in zip(size, window.stride, window.span, window.before, window.after, strict=True)
        )

    def declare(self, input_shape: Shape) -> dict[str, Parameter | Buffer]:
        shape = (input_shape[0], self.out_channels // self.groups, *self.window.kernel)
        overlaps = self.window.tap_count / math.prod(self.window.stride)  # filters that overlap in a place of y
        return self._declare(
            shape,
            self.out_channels,
            fan_in=input_shape[0] // self.groups * overlaps,
            fan_out=shape[1] * self.window.tap_count,
        )

    def flops(self, input_shape: Shape) -> int:
        taps = self.out_channels // self.groups * self.window.tap_count
        return 2 * taps * math.prod(input_shape) + self.has_bias * math.prod(self.output_shape(input_shape))

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        y = ops.conv_backward_input(x, self.weight.data, self._size(tuple(x.shape[1:-1])), self.window, self.groups)
        if self.bias is not None:
            y.flatten(1).add_(self.bias.data[:, None])
        return y, mode.keep(x)

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        (x,) = cache.take()
        if need_dparams:
            ops.add_conv_backward_weight(dy, x, self.window, self.weight.grad, self.groups)
            self._add_bias_gradient(dy)
        return ops.conv(dy, self.weight.data, None, self.window, self.groups) if need_dx else None


class ConvTranspose1d(ConvTranspose):
    __doc__ = ConvTranspose.__doc__
    kind = "conv_transpose1d"
    axes = 1


class ConvTranspose2d(ConvTranspose):
    __doc__ = ConvTranspose.__doc__
    kind = "conv_transpose2d"
    axes = 2


class ConvTranspose3d(ConvTranspose):
    __doc__ = ConvTranspose.__doc__
    kind = "conv_transpose3d"
    axes = 3
