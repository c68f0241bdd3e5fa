"""Convolution in any number of dimensions.

With G groups, input channels and filters are split into G independent parts.
Derived in docs/convolution.md.
"""

from __future__ import annotations

from torch import Tensor

from cnn.ops.backend import choose
from cnn.ops.checks import check_shape, check_weight, check_writable
from cnn.ops.reference import conv as reference
from cnn.ops.window import Sizes, Window


def conv(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window, groups: int = 1) -> Tensor:
    """y[o, p, n] = bias[o] + sum over c, k of weight[o, c, k] * x[c, p * stride + k * dilation - before, n].

    c runs over the channels of o's group. x [C, *S, N], weight [O, C/G, *K], bias [O] -> y [O, *So, N].
    """
    check_weight(weight, window, groups, x, bias)
    check_shape(x, (groups * weight.shape[1], *x.shape[1:]), "x")
    return choose(reference.conv, x)(x, weight, bias, window, groups)


def conv_backward_input(dy: Tensor, weight: Tensor, size: Sizes, window: Window, groups: int = 1) -> Tensor:
    """dx[c, i, n] = sum over o and all p, k with p * stride + k * dilation - before = i

    of weight[o, c, k] * dy[o, p, n]: each output's gradient goes back along the taps that made it.

    dy [O, *So, N], weight [O, C/G, *K] -> dx [C, *S, N], S being `size`.
    """
    check_weight(weight, window, groups, dy)
    check_shape(dy, (weight.shape[0], *window.output_size(size), dy.shape[-1]), "dy")
    return choose(reference.conv_backward_input, dy)(dy, weight, size, window, groups)


def add_conv_backward_weight(
    x: Tensor, dy: Tensor, window: Window, dweight: Tensor, groups: int = 1, dbias: Tensor | None = None
) -> None:
    """dweight[o, c, k] += sum over p, n of dy[o, p, n] * x[c, p * stride + k * dilation - before, n].

    And dbias[o] += sum of dy[o] where there is a bias.
    x [C, *S, N], dy [O, *So, N], dweight [O, C/G, *K], dbias [O].
    """
    check_weight(dweight, window, groups, x, dbias)
    check_weight(dweight, window, groups, dy)
    check_shape(x, (groups * dweight.shape[1], *x.shape[1:]), "x")
    check_shape(dy, (dweight.shape[0], *window.output_size(tuple(x.shape[1:-1])), x.shape[-1]), "dy")
    check_writable(dweight=dweight, dbias=dbias)
    choose(reference.add_conv_backward_weight, x)(x, dy, window, dweight, groups, dbias)
